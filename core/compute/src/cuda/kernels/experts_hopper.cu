// Products with experts for many rows of each on Hopper: `hopper_gemm.cuh` with the matrices of each segment's expert.

#include "activations.cuh"
#include "gates.cuh"
#include "hopper_gemm.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BODY(...) group_gemm<__VA_ARGS__, true>(p, g, 0, blocks);
#else
#define BODY(...)
#endif

// One kernel for each format: the host has the same list.
#define EXPERTS(NAME, F, ROWS, STAGES, ROW_STAGES)                                                                     \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                               \
        experts_##NAME(const __grid_constant__ Products p, const __grid_constant__ Groups g, int blocks) {             \
        BODY(F, 2, ROWS, STAGES, ROW_STAGES)                                                                        \
    }
EXPERTS(q4k, Q4_K, 128, 3, 9)
EXPERTS(q6k, Q6_K, 128, 2, 9)
EXPERTS(mxfp4, MXFP4, 128, 3, 9)

// The inputs of a grouped product, segment by segment.
struct Slots {
    // By row, or by place where `rows_of` is null.
    const float* x;
    const int* rows_of;
    // By place. Where it is there, `x` is a gate, too, and the inputs are activation(x) · up; where `gate` is not negative and it is
    // missing, they are activation(x).
    const float* up;
    const int* count;
    const Segment* segments;
    int columns;
    int block;
    int gate;
    float alpha;
    float limit;
};

// Makes the forms of all segments' rows: a warp for a chunk, x is the segment's row.
extern "C" __global__ void quantize_slots(const __grid_constant__ Slots s, const __grid_constant__ Forms forms) {
    wait_for_previous();
    let_next_start();
    const int chunk = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    const int segment = blockIdx.x / s.block, i = blockIdx.x % s.block;
    if (chunk * CHUNK >= s.columns || segment >= *s.count || i >= s.segments[segment].count) return;
    const int place = s.segments[segment].first + i, column = chunk * CHUNK + threadIdx.x % 32 * 8;
    float v[8], u[8] = {1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f};
    load_row8(s.x + (u64)(s.rows_of ? s.rows_of[place] : place) * s.columns, column, s.columns, v);
    if (s.gate >= 0) {
        if (s.up) load_row8(s.up + (u64)place * s.columns, column, s.columns, u);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = column + j < s.columns ? activate(s.gate, v[j], u[j], s.alpha, s.limit) : 0.f;
    }
    put_forms(forms, blockIdx.x, chunk, v);
}
