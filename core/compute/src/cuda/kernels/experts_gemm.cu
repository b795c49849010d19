// Products with experts for many rows of each: as in `gemm.cu`, but that each segment of rows has its own expert's matrix, and rows
// are found by their numbers. x is 256 outputs, y the segment.

#include "grouped.cuh"

#include "gemm.cuh"

// Rows of a segment.
constexpr int MANY_ROWS = 64;

template <class F>
__device__ __forceinline__ void many_rows(const Grouped& p) {
    constexpr int NT = 4, PASSES = 2;
    wait_for_previous();
    if (blockIdx.y >= segments_of(p)) return;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Unit at(p.segments[blockIdx.y], min((int)blockIdx.x * WARPS + warp, p.units - 1));
    // The row that this thread copies.
    const int row = at.row(p, threadIdx.x / 4);
    float total[PASSES][2][NT][4];
    gemm_totals<F, 2, NT, PASSES, MANY_ROWS>(
        p.x, 0, [&](int chunk, Planes<F>(&planes)[2], TileScales<F>(&scales)[2]) { at.load<F>(p, chunk, planes, scales); },
        [&](int) { return row; }, total);
    // Through shared memory, so that neighbouring outputs are written together.
    extern __shared__ u8 stages[];
    constexpr int STRIDE = 2 * TILE + 4, ROWS = 8 * NT;
    float* mine = (float*)stages + warp * ROWS * STRIDE;
    __syncthreads();
    if (blockIdx.x * WARPS + warp >= p.units) return;
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    mine[(8 * n + 2 * t + i % 2) * STRIDE + TILE * m + g + i / 2 * 8] = total[pass][m][n][i];
        __syncwarp();
#pragma unroll 1
        for (int i = 0; i < min(ROWS, at.count - pass * ROWS); i++) at.finish(p, pass * ROWS + i, mine[i * STRIDE + threadIdx.x % 32]);
        __syncwarp();
    }
}

#define MANY(N, F)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) experts_many_##N(const __grid_constant__ Grouped p) {   \
        many_rows<F>(p);                                                                                                \
    }
FOR_EACH_FORMAT(MANY)
