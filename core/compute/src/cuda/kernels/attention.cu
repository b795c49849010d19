// Attention over pages of half floats and of codes, for any number of rows: see `attention.cuh`.
//
// A block of four warps computes a tile of up to 16, 32 or 64 queries, a leaf after the other. Of a leaf, each warp multiplies the
// queries with the keys of one page, the warps exchange maxima and exponentials, and each weighs a quarter of the values' numbers.
// So each reads its own part of what is copied to shared memory, as a ring, and copies it itself: blocks of few queries,
// which have little to compute, keep memory busy all the time.

#include "attention_floats.cuh"
#include "attention_ring.cuh"

// Half floats, as strips.
struct Halves {
    // Bytes that a warp copies at a time.
    static constexpr int COPY = 2048, STAGES = 4;
    static constexpr bool CODES = false;

    __device__ __forceinline__ static u32 head_bytes(int padded) { return 2 * PAGE * padded; }

    // A piece of a page's keys, eight tokens after another. Those of tokens that are not there stay what they were: their scores
    // are masked.
    __device__ __forceinline__ static void copy_keys(u32 to, const u8* page, int piece, int pieces, int tokens) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + piece * 512 + lane * 16;
        to += lane * 16;
        copy_async<16>(to, from);
        if (tokens > 8) copy_async<16>(to + 512, from + pieces * 512);
        if (tokens > 16) copy_async<16>(to + 1024, from + pieces * 1024);
        if (tokens > 24) copy_async<16>(to + 1536, from + pieces * 1536);
    }

    // `count` strips of a page's values. Tokens that are not there are zeros: what an earlier owner of the page left behind may
    // be no number, and times zero it would still be none.
    __device__ __forceinline__ static void copy_values(u32 to, const u8* page, int strip, int count, int tokens) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + strip * 512 + lane * 16;
        const u32 bytes = lane < tokens ? 16 : 0;
        to += lane * 16;
        copy_or_zero(to, from, bytes);
        if (count > 1) copy_or_zero(to + 512, from + 512, bytes);
        if (count > 2) copy_or_zero(to + 1024, from + 1024, bytes), copy_or_zero(to + 1536, from + 1536, count > 3 ? bytes : 0);
    }

    // Keys of the tokens `8 n ..` and `8 n + 8 ..` as right operands, for 16 numbers.
    struct Keys {
        u32 at;
        __device__ __forceinline__ Keys(u32 at) : at(at + threadIdx.x / 8 % 2 * 128 + threadIdx.x / 16 % 2 * 512 + threadIdx.x % 8 * 16) {}
        __device__ __forceinline__ void load(u32 (&b)[4], int step, int n) const { load_matrices(b, at + step * 256 + n * 512); }
    };

    // Values of a strip as right operands, for 32 tokens.
    struct Values {
        u32 at;
        __device__ __forceinline__ Values(u32 at, int, int) : at(at + threadIdx.x % 32 * 16) {}
        __device__ __forceinline__ void load(u32 (&b)[4], int strip) const { load_transposed(b, at + strip * 512); }
    };
};

// Codes, which become half floats in registers.
struct Codes {
    static constexpr int COPY = 4 * (256 + 64), STAGES = 4;
    static constexpr bool CODES = true;

    __device__ __forceinline__ static u32 head_bytes(int padded) { return CODES_PIECE / PIECE * padded; }

    __device__ __forceinline__ static void copy_keys(u32 to, const u8* page, int piece, int, int) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + piece * CODES_PIECE + lane * 16;
#pragma unroll
        for (int i = 0; i < 2; i++) copy_async<16>(to + i * 512 + lane * 16, from + i * 512);
        if (lane < 8) copy_async<16>(to + 1024 + lane * 16, from + 1024);
    }

    // Strips' codes, and then their pieces' factors.
    __device__ __forceinline__ static void copy_values(u32 to, const u8* page, int strip, int count, int tokens) {
        if (tokens <= 0) return;
#pragma unroll
        for (int i = 0; i < 3; i++) {
            const int unit = threadIdx.x % 32 + 32 * i, at = unit / 20, part = unit % 20;
            const u8* piece = page + (strip + at) / 4 * CODES_PIECE;
            if (at < count)
                copy_async<16>(to + (part < 16 ? at * 256 : 1024 - 256 + at * 64) + part * 16,
                               piece + (part < 16 ? (strip + at) % 4 * 256 : FACTORS_AT - 256) + part * 16);
        }
    }

    // A lane has of the tokens `8 n + g` eight numbers, four for each of two steps.
    struct Keys {
        uint2 codes[4];
        __half2 factors[4];
        uint4 first;
        __device__ __forceinline__ Keys(u32 shared) {
            const u8* at = (const u8*)__cvta_shared_to_generic(shared);
            first = load16(at + FIRST_KEY_AT + threadIdx.x % 4 * 16);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                codes[n] = load8(at + n * 256 + threadIdx.x % 32 * 8);
                factors[n] = __half2half2(*(const __half*)(at + FACTORS_AT + 2 * (8 * n + threadIdx.x % 32 / 4)));
            }
        }
        __device__ __forceinline__ void load(u32 (&b)[4], int step, int n) const {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 four = step ? codes[n + i].y : codes[n + i].x;
                b[2 * i] = half2_bits(__hfma2(code_pair(four, false), factors[n + i], bits_half2(step ? first.z : first.x)));
                b[2 * i + 1] = half2_bits(__hfma2(code_pair(four, true), factors[n + i], bits_half2(step ? first.w : first.y)));
            }
        }
    };

    // Strips' values of a page. Factors of tokens that are not there become zeros: they may be no number.
    struct Values {
        const u8* at;
        u32 factors[4];
        int tokens;
        // Four strips are those of one piece and have the same factors.
        bool together;

        __device__ __forceinline__ Values(u32 shared, int count, int tokens)
            : at((const u8*)__cvta_shared_to_generic(shared)), tokens(tokens), together(count == 4) {
            load_factors(0);
        }
        __device__ __forceinline__ void load_factors(int strip) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int token = 8 * i + threadIdx.x % 4 * 2;
                factors[i] = *(const u32*)(at + 1024 + strip * 64 + 2 * token);
                if (tokens < PAGE) factors[i] &= token + 1 < tokens ? ~0u : token < tokens ? 0xffffu : 0u;
            }
        }
        __device__ __forceinline__ void load(u32 (&b)[4], int strip) {
            if (strip > 0 && !together) load_factors(strip);
            const uint2 codes = load8(at + strip * 256 + threadIdx.x % 32 * 8);
#pragma unroll
            for (int i = 0; i < 4; i++) b[i] = half2_bits(__hmul2(code_pair(i < 2 ? codes.x : codes.y, i % 2), bits_half2(factors[i])));
        }
    };
};

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
