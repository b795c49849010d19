// Writing and copying pages of the KV cache.

#include "cache.cuh"

// Copies one page over another in a layer's keys and values: x covers `len` pieces of 16 bytes, y is keys or values.
extern "C" __global__ void copy_page(uint4* keys, uint4* values, u64 len, u32 from, u32 to) {
    wait_for_previous();
    let_next_start();
    uint4* x = blockIdx.y ? values : keys;
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) x[to * len + i] = x[from * len + i];
}

struct StoreCodes {
    const float* k;
    const float* v;
    u8* keys;
    u8* values;
    const u32* positions;
    // Where a row's page table starts in `pages`.
    const u32* tables;
    const u32* pages;
    int kv_heads;
    // Key/value heads that a page has room for: those of the layer with the most.
    int page_heads;
    int dim;
    int padded;
};

// The keys and values of a batch as 8-bit codes, once keys have been rotated: a warp for the key, or the value, of a head of a
// row; y is the row. The first key of a page is in the page, or it is a row of this batch: then every row of the page rounds it
// itself, to the same half floats.
extern "C" __global__ void store_codes(const __grid_constant__ StoreCodes p) {
    wait_for_previous();
    let_next_start();
    const int job = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, row = blockIdx.y;
    const int kv = job / 2, value = job % 2;
    if (kv >= p.kv_heads) return;
    const u32 position = p.positions[row], page = p.pages[p.tables[row] + position / PAGE];
    const int slot = position % PAGE, first_row = row - slot;
    u8* head = (value ? p.values : p.keys) + ((u64)page * p.page_heads + kv) * 36 * p.padded;
    const float* x = (value ? p.v : p.k) + ((u64)row * p.kv_heads + kv) * p.dim;
    const bool together = first_row >= 0 && p.positions[max(first_row, 0)] == position - slot &&
                          p.tables[max(first_row, 0)] == p.tables[row];
    const float* first = p.k + ((u64)max(first_row, 0) * p.kv_heads + kv) * p.dim;
    store_codes_of(head, x, together ? first : nullptr, slot, p.dim, p.padded, value);
}
