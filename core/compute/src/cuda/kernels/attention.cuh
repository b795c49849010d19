// What the kernels of attention share: their arguments, and the order in which a softmax is summed up.
//
// The order is the same in every kernel and of fixed shape over absolute positions, so a row's bits depend neither on the kernel
// that computes it nor on other rows. A *leaf* is 128 tokens, 4 pages. Of a leaf by itself, a query's scores have a maximum, their
// exponentials a sum, and the values a sum of products with the exponentials, 16 tokens after another. A query's leaves are merged
// one after the other (as Milakov and Gimelshein, arXiv:1805.02867, and Dao et al., arXiv:2205.14135, merge partial sums),
// whether they were all computed here, or each elsewhere and then put together.
#pragma once

#include "cache.cuh"

constexpr int LEAF = 128;
constexpr int LEAF_PAGES = LEAF / PAGE;
constexpr float LOG2E = 1.4426950408889634f;

// Work of a block of threads: a part of the leaves of a tile, for a key/value head. A *tile* is some rows of a sequence, so few
// that their queries of a key/value head are as many as the kernel takes.
struct Item {
    u32 first_row, rows;
    // Which part of how many. `part >= parts`: nothing.
    u32 part, parts;
    // Where the leaves' results go, counted in leaves, if others have parts, too; else `WHOLE`.
    u32 base;
    // Of the first row; where its page table starts; and the first position of its sequence that this batch writes.
    u32 position, table, fresh;
};
constexpr u32 WHOLE = ~0u;

struct Attention {
    const float* q;
    float* out;
    const u8* keys;
    const u8* values;
    const u32* pages;
    const Item* items;
    // Sums of leaves, if several blocks have parts of a tile: `[y][queries][slots]` maxima and sums, `[slots][y][queries][padded]`.
    float2* leaf_sums;
    float* leaf_values;
    // One more score for each query head, or null.
    const float* sinks;
    int heads;
    // Key/value heads that a page has room for: those of the layer with the most.
    int page_heads;
    int group;
    int dim;
    // `dim` as pages have it.
    int padded;
    // Of `leaf_sums`: queries and leaves.
    int queries;
    int slots;
    float scale;
    // 0 for none.
    float cap;
    // Tokens that a row sees, itself included; 0 for all.
    int window;
    // Tokens of a chunk, of which a row sees its own; 0 for no chunks.
    int chunk;
};

__device__ __forceinline__ Item item_of(const Attention& p, int index) {
    const uint4* from = reinterpret_cast<const uint4*>(p.items + index);
    const uint4 x = from[0], y = from[1];
    return {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
}

// The first token that a row at `position` sees.
__device__ __forceinline__ int first_seen(const Attention& p, int position) {
    if (p.chunk) return position - position % p.chunk;
    return p.window ? max(position + 1 - p.window, 0) : 0;
}

// What the rows of an item see between them, and the leaves of its part.
struct Range {
    int lowest, tokens, first, begin, end;

    // The pages of a leaf with tokens of which something may be seen.
    __device__ __forceinline__ int first_page(int leaf) const { return max(lowest / PAGE - leaf * LEAF_PAGES, 0); }
    __device__ __forceinline__ int end_page(int leaf) const { return min((tokens + PAGE - 1) / PAGE - leaf * LEAF_PAGES, LEAF_PAGES); }

    __device__ __forceinline__ Range(const Attention& p, const Item& item) {
        lowest = first_seen(p, item.position), tokens = item.position + item.rows;
        first = lowest / LEAF;
        const u32 leaves = (tokens - 1) / LEAF - first + 1;
        begin = first + leaves * item.part / item.parts;
        end = first + leaves * (item.part + 1) / item.parts;
    }
};

// The query heads of a key/value head that a block computes, of the `most` queries that it has room for.
struct Heads {
    int kv, first, count;

    __device__ __forceinline__ Heads(const Attention& p, int y, int most) {
        const int blocks = (p.group + most - 1) / most, part = y % blocks * most;
        kv = y / blocks, first = kv * p.group + part, count = min(most, p.group - part);
    }
};

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The factor that makes scores powers of two, once a cap has been put on them.
__device__ __forceinline__ float score_unit(const Attention& p) { return p.cap > 0.f ? LOG2E : __fmul_rn(p.scale, LOG2E); }
// The hyperbolic tangent, off by about 1e-7.
__device__ __forceinline__ float capped(const Attention& p, float x) {
    const float y = exp2_fast(__fmul_rn(__fdividef(__fmul_rn(x, p.scale), p.cap), 2.f * LOG2E));
    return __fmaf_rn(__fdividef(-2.f, __fadd_rn(1.f, y)), p.cap, p.cap);
}

// A leaf's exponential of a score, for the leaf's maximum in powers of two.
__device__ __forceinline__ float powers_of(float max, float unit) { return max == -INFINITY ? -INFINITY : __fmul_rn(max, unit); }
__device__ __forceinline__ float exponential(float score, float unit, float power) {
    return exp2_fast(__fmaf_rn(score, unit, power == -INFINITY ? 0.f : -power));
}

// The factors that bring what has been merged, and the next leaf, to a common maximum. A leaf of which nothing is seen changes no
// bit: its sums are zeros, and times -0 they leave even the sign of a zero alone.
__device__ __forceinline__ void next_leaf(float& max, float leaf, float& keep, float& add) {
    const float both = fmaxf(max, leaf);
    keep = max == -INFINITY ? 0.f : exp2_fast(__fsub_rn(max, both));
    add = leaf == -INFINITY ? -0.f : exp2_fast(__fsub_rn(leaf, both));
    max = both;
}
__device__ __forceinline__ float merged(float sum, float leaf, float keep, float add) {
    return __fmaf_rn(sum, keep, __fmul_rn(leaf, add));
}

// What a query's sum of weighted values is multiplied with at the end. A sink takes its share here, once and after all leaves.
__device__ __forceinline__ float share(const Attention& p, float max, float sum, int head) {
    if (!p.sinks) return __frcp_rn(sum);
    const float sink = __fmul_rn(p.sinks[head], LOG2E), both = fmaxf(max, sink), keep = exp2_fast(__fsub_rn(max, both));
    return __fmul_rn(keep, __frcp_rn(__fmaf_rn(sum, keep, exp2_fast(__fsub_rn(sink, both)))));
}

// Four partial sums of a query's exponentials, a page's each, as one lane of four has them.
__device__ __forceinline__ float leaf_sum(float a, float b, float c, float d) {
    float sum = __fadd_rn(__fadd_rn(a, b), __fadd_rn(c, d));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
    return __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
}

// Page `index` of a table. Before the first token that is seen, and past the last, the table has no pages: there the nearest one
// stands in, and its tokens are masked.
__device__ __forceinline__ u32 page_of(const u32* pages, int index, const Range& range) {
    return pages[min(max(index, range.lowest / PAGE), (range.tokens - 1) / PAGE)];
}

// Where a leaf's sums go: of block `y`, a query and a leaf of all.
__device__ __forceinline__ float2* sums_at(const Attention& p, int y, int query, u32 slot) {
    return p.leaf_sums + ((u64)y * p.queries + query) * p.slots + slot;
}
__device__ __forceinline__ float* values_at(const Attention& p, int y, int query, u32 slot) {
    return p.leaf_values + (((u64)slot * gridDim.y + y) * p.queries + query) * p.padded;
}
