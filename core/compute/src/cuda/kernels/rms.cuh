// The factor of an RMS norm, for every kernel that has one.
#pragma once

#include "activations.cuh"

// A block of warps takes the chunks of a row in turns, a warp each; see `activations.cuh`.
__device__ __forceinline__ int first_chunk() { return threadIdx.x / 32; }
__device__ __forceinline__ int column_of(int chunk) { return chunk * CHUNK + threadIdx.x % 32 * 8; }

__device__ __forceinline__ float squares(const float (&v)[8], float sum) {
#pragma unroll
    for (int i = 0; i < 8; i++) sum = fmaf(v[i], v[i], sum);
    return sum;
}

// The factor of an RMS norm over a row, by a whole block. `mine` is this warp's first chunk. Warps without a chunk change nothing, but
// a row of more than 16 chunks takes 16 warps, whatever the kernel.
__device__ __forceinline__ float rms_factor(const float* x, const float (&mine)[8], int columns, float eps, float* space) {
    float sum = squares(mine, 0.f);
    for (int chunk = first_chunk() + blockDim.x / 32; chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        float v[8];
        load_row8(x, column_of(chunk), columns, v);
        sum = squares(v, sum);
    }
    return rsqrtf(block_sum(sum, space) / columns + eps);
}
