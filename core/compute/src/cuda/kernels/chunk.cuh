// The product of one chunk: 16 · MT outputs by 8 · NT rows of activations by 256 columns, on one warp.
//
// Every kernel that multiplies calls this and adds up what it returns chunk by chunk, from column 0 on. Sums of integers
// are exact, whatever the order; the few float operations of a chunk are spelled out here and are the same for each
// pair of an output and a row. So a row's results do not depend on how many others share the batch, nor on the kernel.
//
// Of the result, `sum[m][n][0..4]` are outputs `g`, `g`, `g + 8`, `g + 8` and rows `2 t`, `2 t + 1`, `2 t`, `2 t + 1`.
#pragma once

#include "activations.cuh"
#include "format.cuh"

// Where a warp finds its activations of a chunk: rows in memory. Each lane multiplies a row for each `g` and scales the rows
// `2 t` and `2 t + 1`. Rows past the last are computed as copies of it, and not used.
template <int NT>
struct InMemory {
    const Forms& x;
    int chunk;
    int mine[NT];
    int scaled[NT][2];

    __device__ __forceinline__ InMemory(const Forms& x, int first, int rows, int chunk) : x(x), chunk(chunk) {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            mine[n] = min(first + 8 * n + g, rows - 1);
            scaled[n][0] = min(first + 8 * n + 2 * t, rows - 1);
            scaled[n][1] = min(first + 8 * n + 2 * t + 1, rows - 1);
        }
    }
    __device__ __forceinline__ uint4 codes256(int n, int q) const {
        return load16(x.q256 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16);
    }
    __device__ __forceinline__ uint2 sums16(int n) const {
        return load8(x.sums16 + ((size_t)mine[n] * x.padded + chunk * CHUNK) / 16 + threadIdx.x % 4 * 4);
    }
    __device__ __forceinline__ float scale256(int n, int i) const {
        return x.d256[(size_t)scaled[n][i] * x.chunks + chunk];
    }
    __device__ __forceinline__ uint4 codes32(int n, int q) const {
        return load16(x.q32 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16);
    }
    // Of the two blocks of a quarter.
    __device__ __forceinline__ float2 scales32(int n, int i, int q) const {
        return *reinterpret_cast<const float2*>(x.d32 + ((size_t)scaled[n][i] * x.padded + chunk * CHUNK + q * 64) / 32);
    }
    __device__ __forceinline__ float2 sums32(int n, int i, int q) const {
        return *reinterpret_cast<const float2*>(x.s32 + ((size_t)scaled[n][i] * x.padded + chunk * CHUNK + q * 64) / 32);
    }
    // Of 32 columns.
    __device__ __forceinline__ uint4 halves(int n, int q, int pair) const {
        return load16(x.f16 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + pair * 32 + threadIdx.x % 4 * 8);
    }
    __device__ __forceinline__ float scale16(int n, int i) const {
        return x.scale16[(size_t)scaled[n][i] * x.chunks + chunk];
    }
};

// Sums of 32 products begin with the bits of 1.5 · 2^23, so that they are floats once that is taken off: an addition, where a
// conversion would take eight times as long. Exact below 2^22.
constexpr int BIAS = 0x4b400000;
__device__ __forceinline__ float biased(int sum) { return __fsub_rn(__int_as_float(sum), 12582912.f); }

template <class F, int MT, int NT, class Source>
__device__ __forceinline__ void chunk_product(const Planes<F> (&planes)[MT], const TileScales<F> (&scales)[MT],
                                              const Source& x, int quarters, float (&sum)[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[m][n][i] = 0.f;

    if constexpr (F::codes == HALF) {
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (q < quarters) {
#pragma unroll
                for (int pair = 0; pair < 2; pair++) {
                    uint4 b[NT];
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        b[n] = x.halves(n, q, pair);
#pragma unroll
                    for (int m = 0; m < MT; m++)
#pragma unroll
                        for (int n = 0; n < NT; n++) {
                            const uint4 &u = planes[m].low[4 * q + 2 * pair], &v = planes[m].low[4 * q + 2 * pair + 1];
                            mma_f16(sum[m][n], {u.x, u.y, u.z, u.w}, b[n].x, b[n].y);
                            mma_f16(sum[m][n], {v.x, v.y, v.z, v.w}, b[n].z, b[n].w);
                        }
                }
            }
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float s0 = x.scale16(n, 0), s1 = x.scale16(n, 1);
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[m][n][i] = __fmul_rn(sum[m][n][i], i % 2 ? s1 : s0);
        }
    } else if constexpr (F::by32) {
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (q < quarters) {
                uint4 b[NT];
                float2 d[NT][2], s[NT][2];
#pragma unroll
                for (int n = 0; n < NT; n++) {
                    b[n] = x.codes32(n, q);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        d[n][i] = x.scales32(n, i, q);
                        if constexpr (F::min) s[n][i] = x.sums32(n, i, q);
                    }
                }
#pragma unroll
                for (int block = 0; block < 2; block++)
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        u32 a[4];
                        planes[m].unpack(q, block, a);
                        if constexpr (F::scales == TWIN) {
#pragma unroll
                            for (int half = 0; half < 2; half++) {
                                float w0 = scales[m].twin_scale(4 * q + 2 * block + half, 0);
                                float w1 = scales[m].twin_scale(4 * q + 2 * block + half, 1);
#pragma unroll
                                for (int n = 0; n < NT; n++) {
                                    int dot[4] = {BIAS, BIAS, BIAS, BIAS};
                                    mma_s8_k16(dot, a[2 * half], a[2 * half + 1], Planes<F>::word(b[n], 2 * block + half));
#pragma unroll
                                    for (int i = 0; i < 4; i++) {
                                        float dx = block ? d[n][i % 2].y : d[n][i % 2].x;
                                        sum[m][n][i] =
                                            __fmaf_rn(biased(dot[i]), __fmul_rn(i < 2 ? w0 : w1, dx), sum[m][n][i]);
                                    }
                                }
                            }
                        } else {
                            float w[2], low[2];
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                w[r] = scales[m].block_scale(2 * q + block, r) * F::unit;
                                if constexpr (F::min) low[r] = scales[m].block_minimum(2 * q + block, r);
                            }
#pragma unroll
                            for (int n = 0; n < NT; n++) {
                                int dot[4] = {BIAS, BIAS, BIAS, BIAS};
                                if (block) mma_s8_k32(dot, a, b[n].z, b[n].w);
                                else mma_s8_k32(dot, a, b[n].x, b[n].y);
#pragma unroll
                                for (int i = 0; i < 4; i++) {
                                    float dx = block ? d[n][i % 2].y : d[n][i % 2].x;
                                    sum[m][n][i] = __fmaf_rn(biased(dot[i]), __fmul_rn(w[i / 2], dx), sum[m][n][i]);
                                    if constexpr (F::min) {
                                        float sx = block ? s[n][i % 2].y : s[n][i % 2].x;
                                        sum[m][n][i] = __fmaf_rn(low[i / 2], sx, sum[m][n][i]);
                                    }
                                }
                            }
                        }
                    }
            }
    } else {
        int dots[MT][NT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) dots[m][n][i] = 0;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            uint4 b[NT];
#pragma unroll
            for (int n = 0; n < NT; n++)
                b[n] = x.codes256(n, q);
#pragma unroll
            for (int block = 0; block < 2; block++)
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    u32 a[4];
                    planes[m].unpack(q, block, a);
                    if constexpr (F::scales == SUPER32) {
                        int s0 = scales[m].integer(2 * q + block, 0), s1 = scales[m].integer(2 * q + block, 1);
#pragma unroll
                        for (int n = 0; n < NT; n++) {
                            int dot[4] = {0, 0, 0, 0};
                            if (block) mma_s8_k32(dot, a, b[n].z, b[n].w);
                            else mma_s8_k32(dot, a, b[n].x, b[n].y);
#pragma unroll
                            for (int i = 0; i < 4; i++) dots[m][n][i] += (i < 2 ? s0 : s1) * dot[i];
                        }
                    } else {
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            int s0 = scales[m].integer(4 * q + 2 * block + half, 0);
                            int s1 = scales[m].integer(4 * q + 2 * block + half, 1);
#pragma unroll
                            for (int n = 0; n < NT; n++) {
                                int dot[4] = {0, 0, 0, 0};
                                u32 word = Planes<F>::word(b[n], 2 * block + half);
                                mma_s8_k16(dot, a[2 * half], a[2 * half + 1], word);
#pragma unroll
                                for (int i = 0; i < 4; i++) dots[m][n][i] += (i < 2 ? s0 : s1) * dot[i];
                            }
                        }
                    }
                }
        }
        u32 mins[MT][4];
        if constexpr (F::min) {
#pragma unroll
            for (int m = 0; m < MT; m++) scales[m].min_registers(mins[m]);
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
            uint2 sums = {0, 0};
            if constexpr (F::min) sums = x.sums16(n);
            float dx[2];
#pragma unroll
            for (int i = 0; i < 2; i++) dx[i] = x.scale256(n, i);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                float low[4] = {0.f, 0.f, 0.f, 0.f};
                // Exact: whole numbers below 2^24.
                if constexpr (F::min) mma_f16(low, mins[m], sums.x, sums.y);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float p = __fmul_rn(__fmul_rn((float)dots[m][n][i], F::unit), scales[m].super_scale(i / 2));
                    if constexpr (F::min) p = __fmaf_rn(-low[i], scales[m].super_min(i / 2), p);
                    sum[m][n][i] = __fmul_rn(p, dx[i % 2]);
                }
            }
        }
    }
}
