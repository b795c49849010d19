// The sums that a group of four warps has of 64 outputs and some rows (see `hopper_gemm.cuh`), chunk by chunk.
//
// **The same bits as every other kernel.** For half floats a chunk is 16 products of 16 columns one after the other, as in
// `chunk.cuh`; `wgmma` and `mma.sync` round alike (a test compares them). For codes all is exact: weights become
// integers in half floats, code times integer scale, so that tensor cores add them up. Sums stay below 2^24:
//
// - Q4_K: (code - 8) · scale is at most 8 · 63; times 127 for 256 columns that is 16,386,048. What is missing is eight times the
//   sum of scales times sums of activations, and is added in one rounding, as the integer sum is rounded. The minimums
//   times the sums of activations are whole numbers, too.
// - Q6_K: the scale is 16 · high + low, both by themselves: 15 · 32 · 127 · 256 is 15,605,760. One more rounding, of
//   16 · high + low, is that of the integer sum.
// - Types with a factor for 32 weights: tensor cores add up 32 products of codes, which are then scaled as in `chunk.cuh`.
#pragma once

#include "hopper.cuh"
#include "hopper_weights.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Adds up what a group of warps computes of ROWS rows.
template <class F, int ROWS>
struct Sums {
    static constexpr int N = ROWS / 2;
    float total[N];
    float chunk[N];
    // Of 32 columns, for types that scale them by themselves.
    float dots[F::by32 ? N : 1];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < N; i++) total[i] = 0.f, chunk[i] = 0.f;
    }

    static __device__ __forceinline__ float2 factors(const u8* from, int n) {
        return *(const float2*)(from + (8 * n + 2 * (threadIdx.x % 4)) * 4);
    }

    // Q4_K: a chunk.
    template <class Rows>
    __device__ __forceinline__ void codes4(const u8* tile, u32 sums_at, const u8* from, Rows& rows) {
        Weights4 w;
        w.load(tile);
#pragma unroll
        for (int q = 0; q < 4; q++) {
            u32 a[4][4];
            w.unpack(q, a);
            rows.wait_full();
            const u64 operand = row_operand(rows.at());
            products_fence();
#pragma unroll
            for (int i = 0; i < 4; i++) group_product<ROWS>(chunk, a[i], columns_on(operand, 16 * i), q + i > 0);
            products_commit();
            products_wait<1>();
            if (q > 0) rows.done_before();
            rows.next();
        }
        // What a center of 8 and the minimums add, some rows at a time: more would not fit into registers.
        constexpr int SOME = ROWS < 32 ? ROWS : 32, TIMES = ROWS / SOME;
        u32 scales[4], mins[4];
        w.factors(scales), w.minimums(mins);
        float eighths[2][SOME / 2], low[2][SOME / 2];
        auto start = [&](int time) {
            const u64 operand = sum_operand(sums_at) + time * SOME * 32 / 16;
            products_fence();
            group_product<SOME>(eighths[time % 2], scales, operand, 0);
            group_product<SOME>(low[time % 2], mins, operand, 0);
            products_commit();
        };
        start(0);
        const float d[2] = {half_bits(w.d.x), half_bits(w.d.y)}, dmin[2] = {half_bits(w.d.x >> 16), half_bits(w.d.y >> 16)};
#pragma unroll
        for (int time = 0; time < TIMES; time++) {
            if (time + 1 < TIMES) start(time + 1), products_wait<1>();
            else products_wait<0>();
            if (time == 0) rows.done_before();
#pragma unroll
            for (int n = 0; n < SOME / 8; n++) {
                const float2 dx = factors(from, time * SOME / 8 + n);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int at = time * SOME / 2 + 4 * n + i;
                    float x = __fmul_rn(__fmaf_rn(8.f, eighths[time % 2][4 * n + i], chunk[at]), d[i / 2]);
                    x = __fmaf_rn(-low[time % 2][4 * n + i], dmin[i / 2], x);
                    total[at] = __fadd_rn(total[at], __fmul_rn(x, i % 2 ? dx.y : dx.x));
                }
            }
        }
    }

    // Q6_K.
    template <class Rows>
    __device__ __forceinline__ void codes6(const u8* tile, const u8* from, Rows& rows) {
        float upper[N];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            Weights6 w;
            w.load(tile, q);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u32 high[4], low[4];
                w.unpack(i / 2, i % 2, high, low);
                if (i == 0) rows.wait_full();
                const u64 operand = columns_on(row_operand(rows.at()), 16 * i);
                products_fence();
                group_product<ROWS>(upper, high, operand, q + i > 0);
                group_product<ROWS>(chunk, low, operand, q + i > 0);
                products_commit();
                products_wait<1>();
                if (i == 0 && q > 0) rows.done_before();
            }
            rows.next();
        }
        const u32 ds = *(const u32*)(tile + Q6_K::floats_at(4) + threadIdx.x % 32 / 4 * 4);
        const float d[2] = {half_bits(ds), half_bits(ds >> 16)};
        products_wait<0>();
        rows.done_before();
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 dx = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = __fmul_rn(__fmaf_rn(16.f, upper[4 * n + i], chunk[4 * n + i]), d[i / 2]);
                total[4 * n + i] = __fadd_rn(total[4 * n + i], __fmul_rn(x, i % 2 ? dx.y : dx.x));
            }
        }
    }

    // Types with a factor for 32 weights and for 32 columns of a row: a quarter, `tile` being a tile of `quarters`. The second block's
    // factors are `next` bytes behind the first's.
    __device__ __forceinline__ void codes32(const u8* tile, int q, int quarters, u32 rows_at, const u8* from, int next) {
        Weights32<F> w;
        w.load(tile, q, quarters);
        const u64 operand = row_operand(rows_at);
        u32 a[2][4];
        w.unpack(0, a);
        products_fence();
#pragma unroll
        for (int half = 0; half < 2; half++) group_product<ROWS>(dots, a[half], columns_on(operand, 16 * half), half > 0);
        products_commit();
        u32 b[2][4];
        w.unpack(1, b);
        products_wait<0>();
        scale32(w.factor[0], from);
        products_fence();
#pragma unroll
        for (int half = 0; half < 2; half++) group_product<ROWS>(dots, b[half], columns_on(operand, 32 + 16 * half), half > 0);
        products_commit();
        products_wait<0>();
        scale32(w.factor[1], from + next);
    }
    __device__ __forceinline__ void scale32(const float (&w)[2], const u8* from) {
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 dx = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = 4 * n + i;
                chunk[at] = __fmaf_rn(dots[at], __fmul_rn(w[i / 2], i % 2 ? dx.y : dx.x), chunk[at]);
            }
        }
    }
    __device__ __forceinline__ void end_of_chunk32() {
#pragma unroll
        for (int i = 0; i < N; i++) total[i] = __fadd_rn(total[i], chunk[i]), chunk[i] = 0.f;
    }

    // Half floats: the products of a quarter are started.
    __device__ __forceinline__ void halves(u32 rows_at, const u8* tile, bool first) {
        uint4 w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = load16(tile + i * 512 + threadIdx.x % 32 * 16);
        products_fence();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 a[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
            group_product<ROWS>(chunk, a, columns_on(row_operand(rows_at), 16 * i), i > 0 || !first);
        }
        products_commit();
    }

    // The end of a chunk of half floats.
    __device__ __forceinline__ void scale(const u8* from) {
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 s = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++)
                total[4 * n + i] = __fadd_rn(total[4 * n + i], __fmul_rn(chunk[4 * n + i], i % 2 ? s.y : s.x));
        }
    }
};
#endif
