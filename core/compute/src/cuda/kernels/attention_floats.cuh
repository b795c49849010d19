// Attention over pages of single-precision floats: the same leaves and copies as in `attention.cu`, with products in single
// precision. Keys are multiplied by the lane that has their token; values are weighed by eight lanes for every fourth token.
#pragma once

#include "attention_ring.cuh"

struct Floats {
    static constexpr int COPY = 4096, STAGES = 3;
    // Bytes of a strip of a page.
    static constexpr int BYTES = PAGE * STRIP * 4;

    __device__ __forceinline__ static u32 head_bytes(int padded) { return 4 * PAGE * padded; }

    __device__ __forceinline__ static void copy_keys(u32 to, const u8* page, int piece, int, int) {
        const int at = threadIdx.x % 32 * 16;
#pragma unroll
        for (int i = 0; i < 8; i++) copy_async<16>(to + i * 512 + at, page + piece * 4 * BYTES + i * 512 + at);
    }

    __device__ __forceinline__ static void copy_values(u32 to, const u8* page, int strip, int count, int tokens) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i / 2 < count)
                copy_or_zero(to + i * 512 + lane * 16, page + strip * BYTES + i * 512 + lane * 16, i % 2 * 16 + lane / 2 < tokens ? 16 : 0);
    }
};

__device__ __forceinline__ void attend_floats(const Attention& p) {
    constexpr int QUERIES = 4;
    extern __shared__ __align__(16) u8 shared[];
    const Item item = item_of(p, blockIdx.x);
    if (item.part >= item.parts) return;
    const Heads heads(p, blockIdx.y, QUERIES);
    const Range range(p, item);
    if (range.begin == range.end) return;
    const int queries = item.rows * heads.count;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* q = (float*)shared;                // [QUERIES][padded]
    float4* weights = (float4*)(q + QUERIES * p.padded);  // [128 tokens]
    float* maxima = (float*)(weights + LEAF);             // [4][QUERIES]
    float* sums = maxima + 4 * QUERIES;                   // [4][QUERIES]
    float* shares = sums + 4 * QUERIES;
    Ring<Floats> ring(p, item, range, heads.kv, aligned(shared_address(shares + QUERIES)));
    ring.begin(item);
    auto row_of = [&](int query) { return item.first_row + query / heads.count; };
    auto head_of = [&](int query) { return heads.first + query % heads.count; };
    for (int i = threadIdx.x; i < QUERIES * p.padded; i += 128) {
        const int query = i / p.padded, d = i % p.padded;
        q[i] = query < queries && d < p.dim ? p.q[((u64)row_of(query) * p.heads + head_of(query)) * p.dim + d] : 0.f;
    }
    __syncthreads();
    const float unit = score_unit(p);
    const int pieces = p.padded / PIECE;
    const bool whole = item.base == WHOLE;
    float max_of = -INFINITY, sum_of = 0.f, max_here[QUERIES];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) max_here[i] = -INFINITY;

    for (int leaf = range.begin; leaf < range.end; leaf++) {
        float s[QUERIES] = {};
#pragma unroll 1
        for (int piece = 0; piece < pieces; piece++) {
            const u8* keys = (const u8*)__cvta_shared_to_generic(ring.next()) + lane * 32;
#pragma unroll 1
            for (int strip = 0; strip < 4; strip++) {
                const float4 a = *(const float4*)(keys + strip * Floats::BYTES), b = *(const float4*)(keys + strip * Floats::BYTES + 16);
#pragma unroll
                for (int i = 0; i < QUERIES; i++) {
                    const float4* x = (const float4*)(q + i * p.padded + piece * PIECE + strip * STRIP);
                    const float4 c = x[0], d = x[1];
                    s[i] = fmaf(a.x, c.x, s[i]), s[i] = fmaf(a.y, c.y, s[i]), s[i] = fmaf(a.z, c.z, s[i]), s[i] = fmaf(a.w, c.w, s[i]);
                    s[i] = fmaf(b.x, d.x, s[i]), s[i] = fmaf(b.y, d.y, s[i]), s[i] = fmaf(b.z, d.z, s[i]), s[i] = fmaf(b.w, d.w, s[i]);
                }
            }
        }
        const int token = leaf * LEAF + warp * PAGE + lane;
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            const int position = item.position + min(i, queries - 1) / heads.count;
            if (p.cap > 0.f) s[i] = capped(p, s[i]);
            if (token < first_seen(p, position) || token > position) s[i] = -INFINITY;
            const float max = warp_max(s[i]);
            if (lane == 0) maxima[warp * QUERIES + i] = max;
        }
        __syncthreads();
        auto power_of = [&](int query) {
            const float* x = maxima + query;
            return powers_of(fmaxf(fmaxf(x[0], x[QUERIES]), fmaxf(x[2 * QUERIES], x[3 * QUERIES])), unit);
        };
        float keep[QUERIES], add[QUERIES];
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            const float power = power_of(i);
            s[i] = exponential(s[i], unit, power);
            const float sum = warp_sum(s[i]);
            if (lane == 0) sums[warp * QUERIES + i] = sum;
            next_leaf(max_here[i], power, keep[i], add[i]);
        }
        weights[warp * PAGE + lane] = {s[0], s[1], s[2], s[3]};
        const int mine = threadIdx.x % QUERIES;
        const float power = power_of(mine);
        __syncthreads();
        const bool last = leaf + 1 == range.end;
        const u32 slot = item.base + leaf - range.first;
        if (threadIdx.x < queries) {
            const float sum = (sums[mine] + sums[QUERIES + mine]) + (sums[2 * QUERIES + mine] + sums[3 * QUERIES + mine]);
            float keep, add;
            next_leaf(max_of, power, keep, add);
            sum_of = merged(sum_of, sum, keep, add);
            if (!whole) *sums_at(p, blockIdx.y, mine, slot) = {power, sum};
            else if (last) shares[mine] = share(p, max_of, sum_of, head_of(mine));
        }
        if (whole && last) __syncthreads();

#pragma unroll 1
        for (int from = 0; from < pieces; from += 4) {
            const int strips = min(4, pieces - from), strip = from * 4 + warp * strips;
            float sum[4][QUERIES] = {};
#pragma unroll 1
            for (int page = range.first_page(leaf); page < range.end_page(leaf); page++) {
                const float* values = (const float*)__cvta_shared_to_generic(ring.next()) + lane;
#pragma unroll 2
                for (int i = 0; i < 8; i++) {
                    // Lane `8 a + d` has token `4 i + a` and number `d` of every strip.
                    const float4 w = weights[page * PAGE + 4 * i + lane / 8];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const float v = j < strips ? values[j * (Floats::BYTES / 4) + 32 * i] : 0.f;
                        float* x = sum[j];
                        x[0] = fmaf(w.x, v, x[0]), x[1] = fmaf(w.y, v, x[1]), x[2] = fmaf(w.z, v, x[2]), x[3] = fmaf(w.w, v, x[3]);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
                if (i < queries)
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        float x = sum[j][i];
                        x += __shfl_xor_sync(~0u, x, 8);
                        x += __shfl_xor_sync(~0u, x, 16);
                        const int d = (strip + j) * STRIP + lane;
                        if (j >= strips || lane >= STRIP) continue;
                        if (!whole) values_at(p, blockIdx.y, i, slot)[d] = x;
                        else if (d < p.dim) {
                            float* to = p.out + ((u64)row_of(i) * p.heads + head_of(i)) * p.dim + d;
                            x = merged(leaf == range.begin ? 0.f : *to, x, keep[i], add[i]);
                            *to = last ? __fmul_rn(x, shares[i]) : x;
                        }
                    }
        }
    }
}
