// The heart of products for many rows: what a block's warps add up, whatever the rows and weights are.
#pragma once

#include "copy.cuh"
#include "jobs.cuh"

// Bytes of a row's chunk in shared memory: codes, then scales and sums. An odd number of 64 bytes, so that the rows that a
// quarter of a warp reads lie in different banks.
template <class F>
__host__ __device__ constexpr int stride() {
    return F::codes == HALF ? 576 : 320;
}

// A chunk of ROWS rows to `stage`, of which number `i` is row `row_of(i)`: four threads a row.
template <class F, int ROWS, class RowOf>
__device__ __forceinline__ void fetch(const Forms& x, RowOf row_of, int chunk, u8* stage) {
    if (ROWS < 8 * WARPS && threadIdx.x / 4 >= ROWS) {
        asm volatile("cp.async.commit_group;" ::: "memory");
        return;
    }
    const int part = threadIdx.x % 4, row = row_of(threadIdx.x / 4);
    const u32 to = shared_address(stage + threadIdx.x / 4 * stride<F>());
    const int quarters = quarters_of(x, chunk);
    const u64 at = (u64)row * x.padded + chunk * CHUNK;
    if constexpr (F::codes == HALF) {
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (q < quarters)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int byte = q * 128 + i * 64 + part * 16;
                    copy_async<16>(to + byte, (const u8*)(x.f16 + at) + byte);
                }
        if (part == 0) copy_async<4>(to + 512, x.scale16 + (u64)row * x.chunks + chunk);
    } else if constexpr (F::by32) {
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (q < quarters) copy_async<16>(to + q * 64 + part * 16, x.q32 + at + q * 64 + part * 16);
        if (part < quarters) {
            copy_async<8>(to + 256 + part * 8, x.d32 + at / 32 + part * 2);
            if constexpr (F::min) copy_async<8>(to + 288 + part * 8, x.s32 + at / 32 + part * 2);
        }
    } else {
#pragma unroll
        for (int q = 0; q < 4; q++) copy_async<16>(to + q * 64 + part * 16, x.q256 + at + q * 64 + part * 16);
        if (part < 2) {
            if constexpr (F::min) copy_async<16>(to + 256 + part * 16, x.sums16 + at / 16 + part * 8);
        } else if (part == 2) {
            copy_async<4>(to + 288, x.d256 + (u64)row * x.chunks + chunk);
        }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Where a warp finds its activations of a chunk: in shared memory.
template <class F>
struct InShared {
    const u8* mine;
    const u8* scaled;

    __device__ __forceinline__ InShared(const u8* stage, int first) {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        mine = stage + (first + g) * stride<F>();
        scaled = stage + (first + 2 * t) * stride<F>();
    }
    __device__ __forceinline__ uint4 codes256(int n, int q) const {
        return load16(mine + 8 * n * stride<F>() + q * 64 + threadIdx.x % 4 * 16);
    }
    __device__ __forceinline__ uint4 codes32(int n, int q) const { return codes256(n, q); }
    __device__ __forceinline__ uint4 halves(int n, int q, int pair) const {
        return load16(mine + 8 * n * stride<F>() + q * 128 + pair * 64 + threadIdx.x % 4 * 16);
    }
    __device__ __forceinline__ uint2 sums16(int n) const {
        return load8(mine + 8 * n * stride<F>() + 256 + threadIdx.x % 4 * 8);
    }
    __device__ __forceinline__ float scale256(int n, int i) const {
        return *(const float*)(scaled + (8 * n + i) * stride<F>() + 288);
    }
    __device__ __forceinline__ float2 scales32(int n, int i, int q) const {
        return *(const float2*)(scaled + (8 * n + i) * stride<F>() + 256 + q * 8);
    }
    __device__ __forceinline__ float2 sums32(int n, int i, int q) const {
        return *(const float2*)(scaled + (8 * n + i) * stride<F>() + 288 + q * 8);
    }
    __device__ __forceinline__ float scale16(int n, int i) const {
        return *(const float*)(scaled + (8 * n + i) * stride<F>() + 512);
    }
};

// The sums of all chunks: PASSES times 8 · NT rows from `warp_row` on of the block's ROWS, by MT tiles, of which `load(chunk, planes,
// scales)` reads a chunk.
template <class F, int MT, int NT, int PASSES, int ROWS, class Load, class RowOf>
__device__ __forceinline__ void gemm_totals(const Forms& x, int warp_row, Load load, RowOf row_of,
                                            float (&total)[PASSES][MT][NT][4]) {
    extern __shared__ u8 stages[];  // [2][ROWS][stride]
    // Where weights take few registers, those of the next chunk are loaded early.
    constexpr bool AHEAD = MT == 1 && F::codes != HALF;
    const int chunks = x.chunks;

    Planes<F> planes[MT], ahead[MT];
    TileScales<F> scales[MT], scales_ahead[MT];
    load(0, planes, scales);
    wait_for_previous();
    let_next_start();
    fetch<F, ROWS>(x, row_of, 0, stages);

#pragma unroll
    for (int pass = 0; pass < PASSES; pass++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[pass][m][n][i] = 0.f;

    for (int chunk = 0; chunk < chunks; chunk++) {
        const u8* stage = stages + chunk % 2 * ROWS * stride<F>();
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        if (chunk + 1 < chunks) {
            fetch<F, ROWS>(x, row_of, chunk + 1, stages + (chunk + 1) % 2 * ROWS * stride<F>());
            if constexpr (AHEAD) load(chunk + 1, ahead, scales_ahead);
        }
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            float sum[MT][NT][4];
            InShared<F> rows(stage, warp_row + pass * 8 * NT);
            chunk_product<F, MT, NT>(planes, scales, rows, quarters_of(x, chunk), sum);
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) total[pass][m][n][i] = __fadd_rn(total[pass][m][n][i], sum[m][n][i]);
        }
        if (chunk + 1 < chunks) {
            if constexpr (AHEAD) {
#pragma unroll
                for (int m = 0; m < MT; m++) planes[m] = ahead[m], scales[m] = scales_ahead[m];
            } else {
                // On their way while the warps wait for each other.
                load(chunk + 1, planes, scales);
            }
        }
    }
}
