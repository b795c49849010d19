// The ring in shared memory through which a block's keys and values come, and the loads of operands from there.
#pragma once

#include "attention.cuh"
#include "copy.cuh"

// Lines of 128 bytes are copied as they lie in memory: elsewhere copies take a quarter longer.
__device__ __forceinline__ u32 aligned(u32 at) { return (at + 127) / 128 * 128; }

// Copies 16 bytes, or, for `bytes` of 0, makes them zeros.
__device__ __forceinline__ void copy_or_zero(u32 to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// Four matrices of 8 rows of 16 bytes; lane `l` says where row `l % 8` of matrix `l / 8` is.
__device__ __forceinline__ void load_matrices(u32 (&x)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void load_transposed(u32 (&x)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}

// What a warp reads of the leaves of an item, in order: for each leaf the pieces of its own page's keys, then, for every four pieces
// of values, its strips of each page of which something may be seen. Each warp copies what it will read. (A warp of its own that
// has Hopper's copy engine copy for all was no faster: tried in December 2026.)
template <class Kind>
struct Ring {
    static constexpr int STAGES = Kind::STAGES;
    const u8 *keys, *values;
    const u32* pages;
    const Range& range;
    // Bytes of a page. A lane has the number of page `lane % 4` of the leaf that is copied, and of the one after it.
    u32 stride, number, next_number;
    // Of what is copied: first the keys' pieces, then the values', as if they were others.
    int pieces, leaf, piece, page;
    // The page of keys that this warp copies of the leaf, and its tokens.
    const u8* key_page;
    int key_tokens;
    u32 at, fill, take;

    __device__ __forceinline__ Ring(const Attention& p, const Item& item, const Range& range, int kv, u32 shared) : range(range) {
        const u32 head = Kind::head_bytes(p.padded);
        keys = p.keys + (u64)kv * head, values = p.values + (u64)kv * head, stride = p.page_heads * head;
        pages = p.pages + item.table;
        pieces = p.padded / PIECE;
        leaf = range.begin;
        at = shared + threadIdx.x / 32 * Kind::COPY, fill = take = 0;
        number = page_of(pages, leaf * LEAF_PAGES + threadIdx.x % 4, range);
        begin_leaf();
    }

    __device__ __forceinline__ void begin_leaf() {
        const int warp = threadIdx.x / 32;
        piece = 0, page = range.first_page(leaf);
        key_page = keys + (u64)__shfl_sync(~0u, number, warp) * stride;
        key_tokens = range.tokens - (leaf * LEAF_PAGES + warp) * PAGE;
        next_number = page_of(pages, (leaf + 1) * LEAF_PAGES + threadIdx.x % 4, range);
    }

    __device__ __forceinline__ void copy() {
        if (leaf < range.end) {
            const u32 to = at + fill * 4 * Kind::COPY;
            const int warp = threadIdx.x / 32;
            if (piece < pieces) {
                if (key_tokens > 0) Kind::copy_keys(to, key_page, piece, pieces, key_tokens);
                piece++;
            } else {
                const int from = piece - pieces, count = min(4, pieces - from);
                const u8* of = values + (u64)__shfl_sync(~0u, number, page) * stride;
                Kind::copy_values(to, of, from * 4 + warp * count, count, range.tokens - (leaf * LEAF_PAGES + page) * PAGE);
                if (++page == range.end_page(leaf)) {
                    page = range.first_page(leaf), piece += 4;
                    if (piece >= 2 * pieces) leaf++, number = next_number, begin_leaf();
                }
            }
        }
        copies_end_group();
        fill = fill + 1 == STAGES ? 0 : fill + 1;
    }

    // Fills the ring and waits for the kernel before this one. What earlier batches have written is there already: if that is all
    // of the first leaf, the ring need not wait.
    __device__ __forceinline__ void begin(const Item& item) {
        const bool early = (range.begin + 1) * LEAF <= (int)item.fresh;
        if (!early) wait_for_previous();
#pragma unroll 1
        for (int i = 0; i < STAGES - 1; i++) copy();
        if (early) wait_for_previous();
        let_next_start();
    }

    // Where what comes next is. What was there before that is no longer needed.
    __device__ __forceinline__ u32 next() {
        copies_wait<STAGES - 2>();
        __syncwarp();
        copy();
        const u32 here = at + take * 4 * Kind::COPY;
        take = take + 1 == STAGES ? 0 : take + 1;
        return here;
    }
};
