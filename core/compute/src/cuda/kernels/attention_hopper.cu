// Attention of prompts on Hopper, over pages of half floats, for heads of 64 and of 128 numbers: the same leaves as in
// `attention.cu`, to the same bits, with products by groups of four warps (`wgmma`), in the manner of FlashAttention-3 (Shah et al.,
// arXiv:2407.08608).
//
// A block has three such groups. One has the copy engine bring pages; two have 64 queries each, and while one of them computes
// exponentials, the other's products keep the tensor cores busy. A leaf's four pages are, one after the other, an operand of
// products: keys by groups of eight tokens, values by strips of eight numbers; see `cache.cuh`.

#include "attention.cuh"
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The operand at `at` of pairs of 8 by 8 numbers, 128 bytes each: from one to the next along the columns that products add up,
// `along` bytes, and `across` bytes otherwise.
__device__ __forceinline__ u64 operand(u32 at, u32 along, u32 across) {
    return (u64)((at & 0x3ffff) >> 4) | (u64)(along >> 4) << 16 | (u64)(across >> 4) << 32;
}

// d (+)= a · b for 64 queries and 16 columns, of queries and keys in shared memory.
__device__ __forceinline__ void score_product(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" R64 "}, %64, %65, add, 1, 1, 0, 0;\n}\n"
                 : D16(0), D16(16), D16(32), D16(48)
                 : "l"(a), "l"(b), "r"(add));
}

// d (+)= a · b for 64 queries and 16 tokens: `DIM` numbers of the values, which lie the other way.
template <int DIM>
__device__ __forceinline__ void value_product(float (&d)[DIM / 2], const u32 (&a)[4], u64 b, int add);
template <>
__device__ __forceinline__ void value_product<128>(float (&d)[64], const u32 (&a)[4], u64 b, int add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" R64 "}, {%64,%65,%66,%67}, %68, add, 1, 1, 1;\n}\n"
                 : D16(0), D16(16), D16(32), D16(48)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
template <>
__device__ __forceinline__ void value_product<64>(float (&d)[32], const u32 (&a)[4], u64 b, int add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" R32 "}, {%32,%33,%34,%35}, %36, add, 1, 1, 1;\n}\n"
                 : D16(0), D16(16)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// Where things are in shared memory; `attention.rs` computes the same size.
template <int DIM>
struct Stages {
    static constexpr int COUNT = 2, PAGE_BYTES = 2 * PAGE * DIM, LEAF_BYTES = LEAF_PAGES * PAGE_BYTES;
    // Of each group 64 queries as strips; then for each stage a leaf's keys and its values.
    u32 q, keys, values;
    // Of each stage: its keys have come, they are no longer needed, and the same of its values.
    u32 barriers;

    __device__ __forceinline__ Stages(u32 shared) {
        q = (shared + 127) / 128 * 128;
        keys = q + 2 * 128 * DIM, values = keys + COUNT * LEAF_BYTES, barriers = values + COUNT * LEAF_BYTES;
    }
    __device__ __forceinline__ u32 barrier(int stage, int which) const { return barriers + (stage * 4 + which) * 8; }
};
enum { KEYS, KEYS_FREE, VALUES, VALUES_FREE };

// Until the 128 threads of a group have come here.
__device__ __forceinline__ void meet(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory"); }

template <int DIM>
__device__ __forceinline__ void copy_leaves(const Attention& p, const Item& item, const Range& range, int kv, const Stages<DIM>& at) {
    using S = Stages<DIM>;
    const int lane = threadIdx.x % 32;
    const u32* pages = p.pages + item.table;
    const u64 stride = (u64)p.page_heads * S::PAGE_BYTES, head = (u64)kv * S::PAGE_BYTES;
    u32 number = page_of(pages, range.begin * LEAF_PAGES + lane % 4, range);
    for (int leaf = range.begin; leaf < range.end; leaf++) {
        const int stage = (leaf - range.begin) % S::COUNT, round = (leaf - range.begin) / S::COUNT;
        const bool mine = lane >= range.first_page(leaf) && lane < range.end_page(leaf);
        const u32 bytes = (range.end_page(leaf) - range.first_page(leaf)) * S::PAGE_BYTES;
        const u64 from = number * stride + head;
        number = page_of(pages, (leaf + 1) * LEAF_PAGES + lane % 4, range);
#pragma unroll
        for (int which = KEYS; which <= VALUES; which += VALUES - KEYS) {
            // The first round counts as over.
            wait(at.barrier(stage, which + 1), round % 2 ^ 1);
            const u32 barrier = at.barrier(stage, which);
            if (lane == 0) arrive_expecting(barrier, bytes);
            __syncwarp();
            const u32 to = (which == KEYS ? at.keys : at.values) + stage * S::LEAF_BYTES + lane * S::PAGE_BYTES;
            if (mine) bulk_copy(to, (which == KEYS ? p.keys : p.values) + from, S::PAGE_BYTES, barrier);
        }
    }
}

// Puts a group's 64 queries into shared memory.
template <int DIM>
__device__ __forceinline__ void put_group(const Attention& p, u32 to, const Item& item, const Heads& heads, int first) {
    const int queries = item.rows * heads.count;
    for (int i = threadIdx.x % 128; i < 64 * DIM / 8; i += 128) {
        const int query = first + i % 64, d = i / 64 * 8;
        float4 x = make_float4(0.f, 0.f, 0.f, 0.f), y = x;
        if (query < queries) {
            const float* from = p.q + ((u64)(item.first_row + query / heads.count) * p.heads + heads.first + query % heads.count) * DIM + d;
            x = *reinterpret_cast<const float4*>(from), y = *reinterpret_cast<const float4*>(from + 4);
        }
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to + i * 16), "r"(pack_halves(x.x, x.y)), "r"(pack_halves(x.z, x.w)),
                     "r"(pack_halves(y.x, y.y)), "r"(pack_halves(y.z, y.w))
                     : "memory");
    }
}

template <int DIM>
__device__ __forceinline__ void attend_group(const Attention& p, const Item& item, const Heads& heads, const Range& range,
                                             const Stages<DIM>& at, int group) {
    using S = Stages<DIM>;
    const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int first_query = 64 * group, queries = item.rows * heads.count;
    const u32 q = at.q + group * 128 * DIM;
    wait_for_previous();
    let_next_start();
    put_group<DIM>(p, q, item, heads, first_query);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    meet(1 + group);

    int low[2], high[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        high[r] = item.position + min(first_query + 16 * warp + 8 * r + g, queries - 1) / heads.count;
        low[r] = first_seen(p, high[r]);
    }
    // What the group's queries see: some of them, and all.
    const int from_row = item.position + min(first_query, queries - 1) / heads.count;
    const int to_row = item.position + min(first_query + 63, queries - 1) / heads.count;
    const int some_from = first_seen(p, from_row), all_from = first_seen(p, to_row);
    const float unit = score_unit(p);
    float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f}, all[DIM / 2];
#pragma unroll
    for (int i = 0; i < DIM / 2; i++) all[i] = 0.f;

    for (int leaf = range.begin; leaf < range.end; leaf++) {
        const int stage = (leaf - range.begin) % S::COUNT, parity = (leaf - range.begin) / S::COUNT % 2, first = leaf * LEAF;
        const bool seen = first_query < queries && first <= to_row && first + LEAF > some_from;
        wait(at.barrier(stage, KEYS), parity);
        float s[64];
        if (seen) {
            const u32 keys = at.keys + stage * S::LEAF_BYTES;
            products_fence();
#pragma unroll
            for (int i = 0; i < DIM / 16; i++)
                score_product(s, operand(q + i * 2048, 1024, 128), operand(keys + i * 256, 128, 16 * DIM), i > 0);
            products_commit();
            products_wait<0>();
        }
        if (lane == 0) arrive(at.barrier(stage, KEYS_FREE));
        u32 e[8][4];
        float keep[2], add[2];
        if (seen) {
            if (p.cap > 0.f)
#pragma unroll
                for (int i = 0; i < 64; i++) s[i] = capped(p, s[i]);
            if (first < all_from || first + LEAF - 1 > from_row)
#pragma unroll
                for (int i = 0; i < 64; i++) {
                    const int token = first + i / 4 * 8 + 2 * t + i % 2, r = i / 2 % 2;
                    if (token < low[r] || token > high[r]) s[i] = -INFINITY;
                }
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float m = -INFINITY;
#pragma unroll
                for (int n = 0; n < 16; n++) m = fmaxf(m, fmaxf(s[4 * n + 2 * r], s[4 * n + 2 * r + 1]));
                m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
                m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
                const float power = powers_of(m, unit);
                float of_page[4];
#pragma unroll
                for (int page = 0; page < 4; page++) {
                    of_page[page] = 0.f;
#pragma unroll
                    for (int n = 4 * page; n < 4 * page + 4; n++) {
                        const float x = exponential(s[4 * n + 2 * r], unit, power), y = exponential(s[4 * n + 2 * r + 1], unit, power);
                        of_page[page] = __fadd_rn(__fadd_rn(of_page[page], x), y);
                        e[n / 2][n % 2 * 2 + r] = pack_halves(x, y);
                    }
                }
                next_leaf(max[r], power, keep[r], add[r]);
                sum[r] = merged(sum[r], leaf_sum(of_page[0], of_page[1], of_page[2], of_page[3]), keep[r], add[r]);
            }
        }
        wait(at.barrier(stage, VALUES), parity);
        if (seen) {
            const u32 values = at.values + stage * S::LEAF_BYTES;
            const int from = range.first_page(leaf) * PAGE, left = range.tokens - first;
            if (from > 0 || left < LEAF) {
                // Tokens that are not there become zeros: what an earlier owner of the page left behind may be no number.
                const int token = threadIdx.x % 128;
                if (token < from || token >= left)
                    for (int strip = 0; strip < DIM / 8; strip++)
                        asm volatile("st.shared.v4.u32 [%0], {0, 0, 0, 0};" ::"r"(values + token / PAGE * S::PAGE_BYTES + strip * 512 + token % PAGE * 16)
                                     : "memory");
                asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
                meet(1 + group);
            }
            float out[DIM / 2];
            products_fence();
#pragma unroll
            for (int i = 0; i < 8; i++)
                value_product<DIM>(out, e[i], operand(values + i / 2 * S::PAGE_BYTES + i % 2 * 256, 128, 512), i > 0);
            products_commit();
            products_wait<0>();
#pragma unroll
            for (int i = 0; i < DIM / 2; i++) all[i] = merged(all[i], out[i], keep[i / 2 % 2], add[i / 2 % 2]);
        }
        if (lane == 0) arrive(at.barrier(stage, VALUES_FREE));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int query = first_query + 16 * warp + 8 * r + g;
        if (query >= queries) continue;
        const int head = heads.first + query % heads.count;
        float* to = p.out + ((u64)(item.first_row + query / heads.count) * p.heads + head) * DIM + 2 * t;
        const float by = share(p, max[r], sum[r], head);
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
            *(float2*)(to + 8 * n) = {__fmul_rn(all[4 * n + 2 * r], by), __fmul_rn(all[4 * n + 2 * r + 1], by)};
    }
}

template <int DIM>
__device__ __forceinline__ void attend_hopper(const Attention& p) {
    extern __shared__ u8 shared[];
    const Item item = item_of(p, blockIdx.x);
    const Heads heads(p, blockIdx.y, 128);
    const Range range(p, item);
    const Stages<DIM> at(shared_address(shared));
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Stages<DIM>::COUNT; stage++)
            for (int which = 0; which < 4; which++) barrier_init(at.barrier(stage, which), which % 2 ? 8 : 1);
        barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<24>();
        if (threadIdx.x < 32) {
            wait_for_previous();
            copy_leaves<DIM>(p, item, range, heads.kv, at);
        }
    } else {
        take_registers<240>();
        attend_group<DIM>(p, item, heads, range, at, threadIdx.x / 128 - 1);
    }
}

#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ATTEND(DIM)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(384, 1) attend_hopper_##DIM(const __grid_constant__ Attention p) {        \
        attend_hopper<DIM>(p);                                                                                             \
    }
#else
#define ATTEND(DIM) extern "C" __global__ void attend_hopper_##DIM(const __grid_constant__ Attention) {}
#endif
ATTEND(64)
ATTEND(128)
