// Products for many rows: prompts and large batches. What limits them is arithmetic.
//
// The warps of a block form a grid: some outputs by some rows each. The activations of a chunk are copied to shared memory
// for all of them while the chunk before is computed; weights go from memory to registers, and each warp adds its chunks up
// in order (see `chunk.cuh`). Blocks with the same weights follow each other.
//
// Prompts have blocks of 256 outputs and 64 rows, where a weight that was unpacked meets all rows. Large batches
// have blocks of 64 outputs, so that there are more of them, and two on a multiprocessor.

#include "gemm.cuh"

// ACROSS warps have different outputs, the others different rows: MT tiles and PASSES times 8 · NT rows each.
template <class F, int ACROSS, int MT, int NT, int PASSES>
__device__ __forceinline__ void block_gemm(const Products& p, const Job& job, int block) {
    constexpr int WARP_ROWS = 8 * NT * PASSES, ROWS = WARPS / ACROSS * WARP_ROWS;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int tile = (block * ACROSS + warp % ACROSS) * MT, tiles = (job.outputs + TILE - 1) / TILE;
    const int first_row = blockIdx.x * ROWS, warp_row = warp / ACROSS * WARP_ROWS;
    float total[PASSES][MT][NT][4];
    gemm_totals<F, MT, NT, PASSES, ROWS>(
        p.x, warp_row,
        [&](int chunk, Planes<F>(&planes)[MT], TileScales<F>(&scales)[MT]) {
            load_tiles<F, MT>(job, tile, tiles, chunk, quarters_of(p.x, chunk), planes, scales);
        },
        [&](int i) { return min(first_row + i, p.rows - 1); }, total);
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int row = first_row + warp_row + (pass * NT + n) * 8 + 2 * t + i % 2;
                    int output = (tile + m) * TILE + g + i / 2 * 8;
                    if (row < p.rows && output < job.outputs) finish(job, row, output, total[pass][m][n][i]);
                }
}

// One kernel for each format: they need different numbers of registers. All jobs of a launch have the same format.
#define GEMM(NAME, F, BLOCKS, ACROSS, MT, NT, PASSES)                                                                \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) NAME(const __grid_constant__ Products p) {      \
        const Job& job = job_of(p, blockIdx.y);                                                                      \
        block_gemm<F, ACROSS, MT, NT, PASSES>(p, job, blockIdx.y - job.first_block);                                 \
    }
#define SHAPES(N, F)                       \
    GEMM(gemm_256_##N, F, 1, 8, 2, 4, 2)   \
    GEMM(gemm_64_##N, F, 2, 4, 1, 4, 1)
FOR_EACH_FORMAT(SHAPES)
