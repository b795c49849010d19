// Putting together what several blocks have computed.
#pragma once

#include "attention_ring.cuh"

// Puts the leaves of tiles together that several blocks have computed: x is a tile's first item, y as there, z a query and 32
// numbers. The first warp goes from leaf to leaf with the numbers, the second with the sum, and all bring what they need.
extern "C" __global__ void __launch_bounds__(128) attend_merge(const __grid_constant__ Attention p, int most) {
    constexpr int LEAVES = 64, DEPTH = 4, KNOWN = 512;
    __shared__ __align__(16) float values[DEPTH][LEAVES][PIECE];
    __shared__ float2 factors[KNOWN];
    __shared__ float leaf_sums[KNOWN];
    __shared__ float of_warps[4];
    const Item item = item_of(p, blockIdx.x);
    const Heads heads(p, blockIdx.y, most);
    const int pieces = p.padded / PIECE, query = blockIdx.z / pieces, from = blockIdx.z % pieces * PIECE;
    wait_for_previous();
    let_next_start();
    if (item.base == WHOLE || query >= (int)item.rows * heads.count) return;
    const Range range(p, item);
    const int leaves = (range.tokens - 1) / LEAF - range.first + 1, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const float2* sums = sums_at(p, blockIdx.y, query, item.base);
    auto copy = [&](int first) {
        const float* of = values_at(p, blockIdx.y, query, item.base + first) + from + thread % 8 * 4;
        const u64 step = (u64)gridDim.y * p.queries * p.padded;
#pragma unroll
        for (int i = 0; i < LEAVES / 16; i++) {
            const int leaf = thread / 8 + 16 * i;
            if (first + leaf < leaves) copy_async<16>(shared_address(&values[first / LEAVES % DEPTH][leaf][thread % 8 * 4]), of + leaf * step);
        }
        copies_end_group();
    };
#pragma unroll 1
    for (int i = 0; i < DEPTH - 1; i++) copy(i * LEAVES);
    float max = -INFINITY, x = 0.f;
#pragma unroll 1
    for (int first = 0; first < leaves; first += LEAVES) {
        if (first % KNOWN == 0) {
            // The factors of the next leaves, by the maxima up to each.
            __syncthreads();
#pragma unroll 1
            for (int i = 0; i < KNOWN && first + i < leaves; i += 128) {
                const int leaf = first + i + thread;
                const float2 here = leaf < leaves ? sums[leaf] : float2{-INFINITY, 0.f};
                float upto = here.x;
#pragma unroll
                for (int far = 1; far < 32; far *= 2) {
                    const float other = __shfl_up_sync(~0u, upto, far);
                    if (lane >= far) upto = fmaxf(upto, other);
                }
                if (lane == 31) of_warps[warp] = upto;
                float before = __shfl_up_sync(~0u, upto, 1);
                before = lane == 0 ? max : fmaxf(max, before);
                __syncthreads();
#pragma unroll
                for (int w = 0; w < 4; w++) {
                    if (w < warp) before = fmaxf(before, of_warps[w]);
                    max = fmaxf(max, of_warps[w]);
                }
                float2 by;
                next_leaf(before, here.x, by.x, by.y);
                factors[i + thread] = by, leaf_sums[i + thread] = here.y;
                __syncthreads();
            }
        }
        copies_wait<DEPTH - 2>();
        __syncthreads();
        copy(first + (DEPTH - 1) * LEAVES);
        if (warp < 2) {
            const int count = min(LEAVES, leaves - first);
            const float* v = warp == 0 ? &values[first / LEAVES % DEPTH][0][lane] : leaf_sums + first % KNOWN;
            const int step = warp == 0 ? PIECE : 1;
            const float2* by = factors + first % KNOWN;
#pragma unroll 16
            for (int i = 0; i < count; i++) x = merged(x, v[i * step], by[i].x, by[i].y);
        }
    }
    if (thread == 32) of_warps[0] = x;
    __syncthreads();
    const int head = heads.first + query % heads.count, d = from + lane;
    if (warp == 0 && d < p.dim)
        p.out[((u64)(item.first_row + query / heads.count) * p.heads + head) * p.dim + d] = __fmul_rn(x, share(p, max, of_warps[0], head));
}

// The same for contexts of at most 32 leaves: z is a query, of which a thread has every 128th number.
extern "C" __global__ void __launch_bounds__(128) attend_merge_few(const __grid_constant__ Attention p, int most) {
    constexpr int LEAVES = 32, AT_ONCE = 16;
    __shared__ float2 factors[LEAVES];
    __shared__ float leaf_sums[LEAVES], max;
    const Item item = item_of(p, blockIdx.x);
    const Heads heads(p, blockIdx.y, most);
    const int query = blockIdx.z, thread = threadIdx.x;
    wait_for_previous();
    let_next_start();
    if (item.base == WHOLE || query >= (int)item.rows * heads.count) return;
    const Range range(p, item);
    const int leaves = (range.tokens - 1) / LEAF - range.first + 1;
    const float* values = values_at(p, blockIdx.y, query, item.base) + thread;
    const u64 step = (u64)gridDim.y * p.queries * p.padded;
    float next[AT_ONCE];
    auto load = [&](int d, int first) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) next[i] = d < p.padded && first + i < leaves ? __ldcg(values + d - thread + (first + i) * step) : 0.f;
    };
    load(thread, 0);
    if (thread < 32) {
        const float2 here = thread < leaves ? sums_at(p, blockIdx.y, query, item.base)[thread] : float2{-INFINITY, 0.f};
        float upto = here.x;
#pragma unroll
        for (int far = 1; far < 32; far *= 2) {
            const float other = __shfl_up_sync(~0u, upto, far);
            if (thread >= far) upto = fmaxf(upto, other);
        }
        float before = __shfl_up_sync(~0u, upto, 1);
        if (thread == 0) before = -INFINITY;
        float2 by;
        next_leaf(before, here.x, by.x, by.y);
        factors[thread] = by, leaf_sums[thread] = here.y;
        if (thread == 31) max = upto;
    }
    __syncthreads();
    const int head = heads.first + query % heads.count;
    float* out = p.out + ((u64)(item.first_row + query / heads.count) * p.heads + head) * p.dim;
    for (int d = thread; d < p.padded; d += 128) {
        float x = 0.f, sum = 0.f;
        for (int first = 0; first < leaves; first += AT_ONCE) {
            float now[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) now[i] = next[i];
            const bool more = first + AT_ONCE < leaves;
            load(more ? d : d + 128, more ? first + AT_ONCE : 0);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                if (first + i < leaves) {
                    const float2 by = factors[first + i];
                    x = merged(x, now[i], by.x, by.y), sum = merged(sum, leaf_sums[first + i], by.x, by.y);
                }
        }
        if (d < p.dim) out[d] = __fmul_rn(x, share(p, max, sum, head));
    }
}
