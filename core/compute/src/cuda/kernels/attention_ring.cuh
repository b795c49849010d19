// The ring in shared memory through which a block's keys and values come, and the loads of operands from there.
#pragma once

#include "attention.cuh"
#include "copy.cuh"

// Copies 16 bytes, or makes them zeros.
__device__ __forceinline__ void copy_or_zero(u32 to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
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

// How many of a page's tokens there are: none before the first page that is seen, for which another stands in.
__device__ __forceinline__ int tokens_of(const Range& range, int page) {
    return page < range.lowest / PAGE ? 0 : range.tokens - page * PAGE;
}

// What a warp reads of the leaves of an item, in order: for each leaf the pieces of its own page's keys, then, for every four pieces
// of values, its strips of each page.
template <class Kind>
struct Ring {
    static constexpr int STAGES = Kind::STAGES;
    const u8 *keys, *values;
    const u32* pages;
    const Range& range;
    // Bytes of a page. A lane has the number of page `lane % 4` of the leaf that is copied, and of the one after it.
    u32 stride, number, next_number;
    int pieces, steps, leaf, step;
    u32 at, fill, take;

    __device__ __forceinline__ Ring(const Attention& p, const Item& item, const Range& range, int kv, u32 shared) : range(range) {
        const u32 head = Kind::head_bytes(p.padded);
        keys = p.keys + (u64)kv * head, values = p.values + (u64)kv * head, stride = p.page_heads * head;
        pages = p.pages + item.table;
        pieces = p.padded / PIECE, steps = pieces + (pieces + 3) / 4 * LEAF_PAGES;
        leaf = range.begin, step = 0;
        at = shared + threadIdx.x / 32 * Kind::COPY, fill = take = 0;
        number = page_of(pages, leaf * LEAF_PAGES + threadIdx.x % 4, range);
        next_number = page_of(pages, (leaf + 1) * LEAF_PAGES + threadIdx.x % 4, range);
    }

    __device__ __forceinline__ u32 slot(u32 index) const { return at + index * 4 * Kind::COPY; }

    __device__ __forceinline__ void copy() {
        if (leaf < range.end) {
            const int warp = threadIdx.x / 32;
            if (step < pieces) {
                const int left = tokens_of(range, leaf * LEAF_PAGES + warp);
                if (left > 0) Kind::copy_keys(slot(fill), keys + (u64)__shfl_sync(~0u, number, warp) * stride, step, left);
            } else {
                const int page = (step - pieces) % LEAF_PAGES, from = (step - pieces) / LEAF_PAGES * 4, count = min(4, pieces - from);
                const u8* of = values + (u64)__shfl_sync(~0u, number, page) * stride;
                Kind::copy_values(slot(fill), of, from * 4 + warp * count, count, tokens_of(range, leaf * LEAF_PAGES + page));
            }
            if (++step == steps) {
                step = 0, leaf++;
                number = next_number;
                next_number = page_of(pages, (leaf + 1) * LEAF_PAGES + threadIdx.x % 4, range);
            }
        }
        copies_end_group();
        fill = fill + 1 == STAGES ? 0 : fill + 1;
    }

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++) copy();
    }

    // Where the next of them is; what was there before that is no longer needed.
    __device__ __forceinline__ u32 next() {
        copies_wait<STAGES - 2>();
        __syncwarp();
        copy();
        const u32 here = slot(take);
        take = take + 1 == STAGES ? 0 : take + 1;
        return here;
    }
};
