// What a product kernel is asked for: up to four matrices and one input.
#pragma once

#include "chunk.cuh"

constexpr int WARPS = 8;
constexpr int MAX_JOBS = 4;

struct Job {
    const u8* weight;
    const float* bias;
    float* out;
    u64 tile_row_bytes;
    int format;
    int outputs;
    // The first of the blocks of threads that work on this matrix, and for few rows, how many do.
    int first_block;
    int step;
    int accumulate;
    // Undoes the power of two that bfloat16 weights were multiplied with.
    float factor;
};

struct Products {
    Job jobs[MAX_JOBS];
    Forms x;
    int count;
    int rows;
    int columns;
    // For few rows, chunks whose sums shared memory holds: a multiple of the warps.
    int round;
};

// The matrix that a block works on.
__device__ __forceinline__ const Job& job_of(const Products& p, int block) {
    int j = 0;
#pragma unroll
    for (int i = 1; i < MAX_JOBS; i++)
        if (i < p.count && block >= p.jobs[i].first_block) j = i;
    return p.jobs[j];
}

// Quarters of a chunk that a matrix has.
__device__ __forceinline__ int quarters_of(const Forms& x, int chunk) {
    return min(4, (x.padded - chunk * CHUNK) / QUARTER);
}

// Puts a result where it belongs.
__device__ __forceinline__ void finish(const Job& job, int row, int output, float total) {
    float value = __fmul_rn(total, job.factor);
    if (job.bias) value = __fadd_rn(value, job.bias[output]);
    float* out = job.out + (u64)row * job.outputs + output;
    *out = job.accumulate ? __fadd_rn(*out, value) : value;
}

// A chunk of MT tiles; tiles past the last are copies of it.
template <class F, int MT>
__device__ __forceinline__ void load_tiles(const Job& job, int tile, int tiles, int chunk, int quarters,
                                           Planes<F> (&planes)[MT], TileScales<F> (&scales)[MT]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const u8* p = job.weight + tile_at<F>(min(tile + m, tiles - 1), chunk, quarters, job.tile_row_bytes);
        planes[m].load(p, lane, quarters);
        scales[m].load(p, lane, quarters);
    }
}

