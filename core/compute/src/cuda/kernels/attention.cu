// Attention over pages of half floats and of codes, for any number of rows: see `attention.cuh`.
//
// A block of four warps computes a tile of up to 16, 32 or 64 queries, a leaf after the other. Of a leaf, each warp multiplies the
// queries with the keys of one page, the warps exchange maxima and exponentials, and each weighs a quarter of the values' numbers.
// So each reads its own part of what is copied to shared memory, as a ring, and copies it itself: blocks of few queries,
// which have little to compute, keep memory busy all the time.

#include "attention_floats.cuh"
#include "attention_pages.cuh"

// Where things are in shared memory; `attention.rs` computes the same size.
template <int QUERIES>
struct Space {
    u8* q;              // half floats, as strips `[padded / 8][QUERIES][8]`
    float2* whole;      // sums of the leaves so far, as lanes have them
    uint4* weights;     // exponentials as left operands, `[8][QUERIES / 16][32]`
    float* maxima;      // `[4][QUERIES]`
    float* sums;        // `[4][QUERIES][4]`
    int4* limits;       // first and last token that a query sees, and its place among all queries
    float* shares;
    u32 ring;

    __device__ __forceinline__ Space(u8* shared, int padded) {
        q = shared;
        whole = (float2*)(q + 2 * QUERIES * padded);
        weights = (uint4*)(whole + QUERIES * padded / 2);
        maxima = (float*)(weights + 16 * QUERIES);
        sums = maxima + 4 * QUERIES;
        limits = (int4*)(sums + 16 * QUERIES);
        shares = (float*)(limits + QUERIES);
        ring = aligned(shared_address(shares + QUERIES));
    }
};

// Puts the queries of a tile into shared memory, eight numbers a thread at a time. The numbers of codes' keys are on lanes in
// another order.
template <int QUERIES, bool CODES>
__device__ __forceinline__ void put_queries(const Attention& p, u8* to, const Item& item, const Heads& heads) {
    const int queries = item.rows * heads.count;
    for (int i = threadIdx.x; i < QUERIES * p.padded / 8; i += 128) {
        const int query = i % QUERIES, d = i / QUERIES * 8;
        float x[8] = {};
        if (query < queries) {
            const float* from = p.q + ((u64)(item.first_row + query / heads.count) * p.heads + heads.first + query % heads.count) * p.dim + d;
            if (p.dim % 4 == 0) {
#pragma unroll
                for (int half = 0; half < 2; half++)
                    if (d + 4 * half < p.dim) {
                        const float4 y = *reinterpret_cast<const float4*>(from + 4 * half);
                        x[4 * half] = y.x, x[4 * half + 1] = y.y, x[4 * half + 2] = y.z, x[4 * half + 3] = y.w;
                    }
            } else
#pragma unroll
                for (int j = 0; j < 8; j++) x[j] = d + j < p.dim ? from[j] : 0.f;
        }
        u32 h[4];
#pragma unroll
        for (int j = 0; j < 4; j++) h[j] = pack_halves(x[2 * j], x[2 * j + 1]);
        if constexpr (CODES) {
            // Number `8 t + 4 s + i` of a piece belongs to step `s` and lane `t` of four.
            const int piece = d / PIECE, t = d % PIECE / 8;
#pragma unroll
            for (int j = 0; j < 4; j++)
                *(u32*)(to + ((piece * 4 + j) * QUERIES + query) * 16 + t * 4) = h[j];
        } else {
            *(uint4*)(to + i * 16) = {h[0], h[1], h[2], h[3]};
        }
    }
}

template <class Kind, int TILES>
__device__ __forceinline__ void attend(const Attention& p) {
    constexpr int QUERIES = 16 * TILES;
    extern __shared__ __align__(16) u8 shared[];
    const Item item = item_of(p, blockIdx.x);
    if (item.part >= item.parts) return;
    const Heads heads(p, blockIdx.y, QUERIES);
    const Range range(p, item);
    const int queries = item.rows * heads.count;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Space<QUERIES> at(shared, p.padded);
    if (range.begin == range.end) return;

    Ring<Kind> ring(p, item, range, heads.kv, at.ring);
    ring.begin(item);
    put_queries<QUERIES, Kind::CODES>(p, at.q, item, heads);
    for (int query = threadIdx.x; query < QUERIES; query += 128) {
        const int row = min(query, queries - 1) / heads.count, position = item.position + row;
        at.limits[query] = {first_seen(p, position), position, (int)(item.first_row + row) * p.heads + heads.first + query % heads.count, 0};
    }
    __syncthreads();

    const float unit = score_unit(p);
    // Tokens that all queries see.
    const int all_from = first_seen(p, range.tokens - 1), all_to = item.position;
    const int pieces = p.padded / PIECE;
    constexpr int OF_THREAD = (4 * QUERIES + 127) / 128;
    float max_of[OF_THREAD], sum_of[OF_THREAD], max_here[TILES][2];
#pragma unroll
    for (int i = 0; i < OF_THREAD; i++) max_of[i] = -INFINITY, sum_of[i] = 0.f;
#pragma unroll
    for (int m = 0; m < TILES; m++) max_here[m][0] = max_here[m][1] = -INFINITY;

    for (int leaf = range.begin; leaf < range.end; leaf++) {
        float s[TILES][4][4] = {};
#pragma unroll 1
        for (int piece = 0; piece < pieces; piece++) {
            const typename Kind::Keys keys(ring.next());
#pragma unroll
            for (int step = 0; step < 2; step++) {
                u32 a[TILES][4];
#pragma unroll
                for (int m = 0; m < TILES; m++)
                    load_matrices(a[m], shared_address(at.q) + ((piece * 4 + step * 2 + lane / 16) * QUERIES + m * 16 + lane % 16) * 16);
#pragma unroll
                for (int n = 0; n < 4; n += 2) {
                    u32 b[4];
                    keys.load(b, step, n);
#pragma unroll
                    for (int m = 0; m < TILES; m++) mma_f16(s[m][n], a[m], b[0], b[1]), mma_f16(s[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
        const int first = leaf * LEAF + warp * PAGE;
        if (p.cap > 0.f)
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 16; i++) s[m][i / 4][i % 4] = capped(p, s[m][i / 4][i % 4]);
        if (leaf * LEAF < all_from || (leaf + 1) * LEAF - 1 > all_to)
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int4 limits = at.limits[16 * m + 8 * r + g];
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        const int token = first + i / 2 * 8 + 2 * t + i % 2;
                        if (token < limits.x || token > limits.y) s[m][i / 2][2 * r + i % 2] = -INFINITY;
                    }
                }
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float max = -INFINITY;
#pragma unroll
                for (int i = 0; i < 8; i++) max = fmaxf(max, s[m][i / 2][2 * r + i % 2]);
                max = fmaxf(max, __shfl_xor_sync(~0u, max, 1));
                max = fmaxf(max, __shfl_xor_sync(~0u, max, 2));
                if (t == 0) at.maxima[warp * QUERIES + 16 * m + 8 * r + g] = max;
            }
        __syncthreads();
        auto power_of = [&](int query) {
            const float* x = at.maxima + query;
            return powers_of(fmaxf(fmaxf(x[0], x[QUERIES]), fmaxf(x[2 * QUERIES], x[3 * QUERIES])), unit);
        };
        float keep[TILES][2], add[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            u32 e[2][4];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int query = 16 * m + 8 * r + g;
                const float power = power_of(query);
                float sum = 0.f;
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const float x = exponential(s[m][n][2 * r], unit, power), y = exponential(s[m][n][2 * r + 1], unit, power);
                    sum = __fadd_rn(__fadd_rn(sum, x), y);
                    e[n / 2][n % 2 * 2 + r] = pack_halves(x, y);
                }
                at.sums[(warp * QUERIES + query) * 4 + t] = sum;
                next_leaf(max_here[m][r], power, keep[m][r], add[m][r]);
            }
#pragma unroll
            for (int step = 0; step < 2; step++)
                at.weights[((warp * 2 + step) * TILES + m) * 32 + lane] = {e[step][0], e[step][1], e[step][2], e[step][3]};
        }
        float power[OF_THREAD];
#pragma unroll
        for (int i = 0; i < OF_THREAD; i++) power[i] = power_of((threadIdx.x + 128 * i) / 4 % QUERIES);
        __syncthreads();
        const bool whole = item.base == WHOLE, last = leaf + 1 == range.end;
        const u32 slot = item.base + leaf - range.first;
#pragma unroll
        for (int i = 0; i < OF_THREAD; i++) {
            const int query = (threadIdx.x + 128 * i) / 4;
            if (query >= QUERIES) continue;
            const float* x = at.sums + 4 * query + t;
            const float sum = leaf_sum(x[0], x[4 * QUERIES], x[8 * QUERIES], x[12 * QUERIES]);
            float keep, add;
            next_leaf(max_of[i], power[i], keep, add);
            sum_of[i] = merged(sum_of[i], sum, keep, add);
            if (t > 0 || query >= queries) continue;
            if (!whole) *sums_at(p, blockIdx.y, query, slot) = {power[i], sum};
            else if (last) at.shares[query] = share(p, max_of[i], sum_of[i], at.limits[query].z % p.heads);
        }

#pragma unroll 1
        for (int from = 0; from < pieces; from += 4) {
            const int strips = min(4, pieces - from);
            float sum[TILES][4][4] = {};
#pragma unroll 1
            for (int page = range.first_page(leaf); page < range.end_page(leaf); page++) {
                typename Kind::Values values(ring.next(), strips, range.tokens - (leaf * LEAF_PAGES + page) * PAGE);
                u32 a[2][TILES][4];
#pragma unroll
                for (int step = 0; step < 2; step++)
#pragma unroll
                    for (int m = 0; m < TILES; m++) {
                        const uint4 x = at.weights[((page * 2 + step) * TILES + m) * 32 + lane];
                        a[step][m][0] = x.x, a[step][m][1] = x.y, a[step][m][2] = x.z, a[step][m][3] = x.w;
                    }
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (j < strips) {
                        u32 b[4];
                        values.load(b, j);
#pragma unroll
                        for (int m = 0; m < TILES; m++) mma_f16(sum[m][j], a[0][m], b[0], b[1]), mma_f16(sum[m][j], a[1][m], b[2], b[3]);
                    }
            }
            auto for_each = [&](auto put) {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (j < strips)
#pragma unroll
                        for (int m = 0; m < TILES; m++)
#pragma unroll
                            for (int r = 0; r < 2; r++) put(j, m, r, float2{sum[m][j][2 * r], sum[m][j][2 * r + 1]});
            };
            if (whole) {
                float2* sums = at.whole + from * TILES * 256 + threadIdx.x;
                const bool first = leaf == range.begin;
                for_each([&](int j, int m, int r, float2 x) {
                    float2& y = sums[((j * TILES + m) * 2 + r) * 128];
                    float2 before = y;
                    if (first) before = {0.f, 0.f};
                    y = {merged(before.x, x.x, keep[m][r], add[m][r]), merged(before.y, x.y, keep[m][r], add[m][r])};
                });
            } else {
                float* to = values_at(p, blockIdx.y, g, slot) + (from * 4 + warp * strips) * STRIP + 2 * t;
                for_each([&](int j, int m, int r, float2 x) {
                    if (16 * m + 8 * r + g < queries) *(float2*)(to + (16 * m + 8 * r) * p.padded + j * STRIP) = x;
                });
            }
        }
    }
    if (item.base != WHOLE) return;
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < pieces * TILES * 2; i++) {
        const int query = i % (2 * TILES) * 8 + g, piece = i / (2 * TILES), from = piece / 4 * 4;
        const int d = (from * 4 + warp * min(4, pieces - from) + piece % 4) * STRIP + 2 * t;
        const float2 x = at.whole[i * 128 + threadIdx.x];
        if (query >= queries) continue;
        float* to = p.out + (u64)at.limits[query].z * p.dim + d;
        if (d < p.dim) to[0] = __fmul_rn(x.x, at.shares[query]);
        if (d + 1 < p.dim) to[1] = __fmul_rn(x.y, at.shares[query]);
    }
}

#define ATTEND(NAME, KIND, TILES, BLOCKS)                                                                            \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(const __grid_constant__ Attention p) {            \
        attend<KIND, TILES>(p);                                                                                      \
    }
ATTEND(attend_16, Halves, 1, 4)
ATTEND(attend_32, Halves, 2, 2)
ATTEND(attend_64, Halves, 4, 2)
ATTEND(attend_codes_16, Codes, 1, 5)
ATTEND(attend_codes_32, Codes, 2, 2)
ATTEND(attend_codes_64, Codes, 4, 2)
extern "C" __global__ void __launch_bounds__(128) attend_floats_4(const __grid_constant__ Attention p) { attend_floats(p); }

// What several blocks have computed is put together.
#include "attention_merge.cuh"
