// Attention over the paged KV cache.
//
// A page of a layer holds, for each key/value head, keys `[32][padded]` and values `[16][padded][2]`, two tokens side by
// side: both are operands of half-float products that lanes read 16 bytes at a time, without shared memory in between. Pages of
// 8-bit codes (see `cache.cuh`) become half floats in registers, and all is the same from there on.
//
// A *tile* is up to 16 queries of one sequence that share a key/value head: rows times the query heads of the group. Each
// query's softmax is a tree of fixed shape over its context: *blocks* of 64 tokens by themselves, 4 blocks one after the other
// into a *span* of 256, spans one after the other (as Milakov and Gimelshein, arXiv:1805.02867, and Dao et al.,
// arXiv:2205.14135, merge partial sums). Both kernels here compute that tree, one with a block of threads for each block of
// tokens (few rows, long contexts), one with a warp for each tile (prompts), so a row's result does not depend on which it
// met, nor on the other rows.

#include "cache.cuh"

constexpr int BLOCK_TOKENS = 64;
constexpr int SPAN_BLOCKS = 4;
constexpr int SPAN_TOKENS = BLOCK_TOKENS * SPAN_BLOCKS;
// Widest heads of the kernels for prompts. Rows of wider heads (latent attention, where many query heads share one key/value
// head and fill a tile with one row) go each by itself.
constexpr int MOST_TILED = 256;

struct Attention {
    const float* q;
    float* out;
    const void* keys;
    const void* values;
    const u32* positions;
    const u32* tables;
    const u32* pages;
    // For few rows: which; partial sums `[rows][heads and tiles][blocks][queries][DIM + 2]`, and how many are ready.
    const u32* rows;
    float* partial;
    u32* ready;
    // For prompts: first row of the sequence, its rows, which tile, for every tile.
    const u32* tiles;
    // One more score for each query head, or null.
    const float* sinks;
    int heads;
    // Key/value heads that a page has room for: those of the layer with the most.
    int page_heads;
    int group;
    int dim;
    int blocks;
    float scale;
    // 0 for none.
    float cap;
    // Tokens that a row sees, itself included; 0 for all.
    int window;
    // Tokens of a chunk, of which a row sees its own; 0 for no chunks.
    int chunk;
};

// Kernels without `ANY` are for attention that has neither sinks nor chunks, as most has: those would take registers of a loop
// that needs them all.

// The first token that a row at `position` sees.
template <bool ANY>
__device__ __forceinline__ int first_seen(const Attention& p, int position) {
    if (ANY && p.chunk) return position - position % p.chunk;
    return p.window ? max(position + 1 - p.window, 0) : 0;
}

// What a query knows about some of its context.
struct Running {
    float max, sum;
};

// The factors that bring two partial sums to a common maximum.
__device__ __forceinline__ void merge(Running& a, const Running& b, float& keep, float& add) {
    float max = fmaxf(a.max, b.max);
    keep = a.max == -INFINITY ? 0.f : __expf(__fsub_rn(a.max, max));
    add = b.max == -INFINITY ? 0.f : __expf(__fsub_rn(b.max, max));
    a.sum = __fmaf_rn(a.sum, keep, __fmul_rn(b.sum, add));
    a.max = max;
}

__device__ __forceinline__ float merged(float a, float b, float keep, float add) {
    return __fmaf_rn(a, keep, __fmul_rn(b, add));
}

// What a query's sum of weighted values is multiplied with at the end. A sink takes its share here, once and after the whole
// tree.
template <bool ANY>
__device__ __forceinline__ float share(const Attention& p, const Running& all, int head) {
    if (!ANY || !p.sinks) return __frcp_rn(all.sum);
    const float sink = p.sinks[head], max = fmaxf(all.max, sink), keep = __expf(__fsub_rn(all.max, max));
    return __fmul_rn(keep, __frcp_rn(__fmaf_rn(all.sum, keep, __expf(__fsub_rn(sink, max)))));
}

// Entry `index` of a page table. Before the first token that is seen, and past the last, the table has no pages: there the
// nearest one stands in, and its tokens are masked.
__device__ __forceinline__ u32 page_of(const u32* pages, int index, int lowest, int tokens) {
    return pages[min(max(index, lowest / PAGE), (tokens - 1) / PAGE)];
}

// 32 numbers of the queries `g` and `g + 8` of a tile as left operands; see `Queries`.
__device__ __forceinline__ void query_piece(u32 (&a)[2][4], const float* const (&of)[2], int piece, int dim) {
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = 32 * piece + threadIdx.x % 4 * 8 + 4 * i;
            float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
            if (of[r] && at < dim) {
                if (dim % 4 == 0) x = *reinterpret_cast<const float4*>(of[r] + at);
                else {
                    x.x = of[r][at];
                    if (at + 1 < dim) x.y = of[r][at + 1];
                    if (at + 2 < dim) x.z = of[r][at + 2];
                    if (at + 3 < dim) x.w = of[r][at + 3];
                }
            }
            a[i][r] = pack_halves(x.x, x.y), a[i][r + 2] = pack_halves(x.z, x.w);
        }
}

// The queries of a tile as left operands: lane `4 g + t` has of query `g` (and `g + 8`) numbers `32 s + 8 t ..`.
template <int DIM>
struct Queries {
    u32 a[DIM / 16][4];

    // `of(r)` is query `g + 8 r`, or null.
    template <class Of>
    __device__ __forceinline__ void load(Of of, int dim) {
        int t = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float* q = of(r);
#pragma unroll
            for (int s = 0; s < DIM / 32; s++) {
                float x[8];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    int at = 32 * s + 8 * t + i;
                    x[i] = q && at < dim ? q[at] : 0.f;
                }
#pragma unroll
                for (int i = 0; i < 4; i++) a[2 * s + i / 2][r + i % 2 * 2] = pack_halves(x[2 * i], x[2 * i + 1]);
            }
        }
    }
};

// From the products of 16 queries with 64 keys to exponentials, as left operands of the product with the values. Of `s[n]`
// lane `4 g + t` has queries `g` and `g + 8` and the tokens `8 n + 2 t` and the next.
__device__ __forceinline__ void soften(const Attention& p, float (&s)[8][4], int first, const int (&low)[2],
                                       const int (&high)[2], u32 (&e)[4][4], Running (&run)[2]) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float max = -INFINITY;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float& x = s[n][2 * r + i];
                x = __fmul_rn(x, p.scale);
                if (p.cap > 0.f) x = __fmul_rn(tanhf(__fdiv_rn(x, p.cap)), p.cap);
                int token = first + 8 * n + 2 * t + i;
                if (token < low[r] || token > high[r]) x = -INFINITY;
                max = fmaxf(max, x);
            }
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 1));
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 2));
        float sum = 0.f;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float& x = s[n][2 * r + i];
                x = x == -INFINITY ? 0.f : __expf(__fsub_rn(x, max));
                sum = __fadd_rn(sum, x);
            }
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
        run[r] = {max, sum};
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
        e[step][0] = pack_halves(s[2 * step][0], s[2 * step][1]);
        e[step][1] = pack_halves(s[2 * step][2], s[2 * step][3]);
        e[step][2] = pack_halves(s[2 * step + 1][0], s[2 * step + 1][1]);
        e[step][3] = pack_halves(s[2 * step + 1][2], s[2 * step + 1][3]);
    }
}

// One block of 64 tokens for 16 queries: the exponentials as left operands of the product with the values.
template <int DIM, bool CODES>
__device__ __forceinline__ void scores(const Attention& p, const Queries<DIM>& q, const u8* keys, const u32* pages,
                                       int first, const int (&low)[2], const int (&high)[2], int lowest, int tokens,
                                       u32 (&e)[4][4], Running (&run)[2]) {
    float s[8][4];
    // Keys come in batches of 64 registers, each on its way while the one before is multiplied: latency is most of
    // what a short context costs.
    constexpr int PIECES = DIM / 32, AT_ONCE = PIECES <= 2 ? 8 : PIECES <= 4 ? 4 : 2;
    Key<DIM, CODES> b[2][AT_ONCE];
    Offsets<DIM, CODES> offsets;
    auto load = [&](int batch, Key<DIM, CODES>(&to)[AT_ONCE]) __attribute__((always_inline)) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int n = batch * AT_ONCE + i;
            u32 page = page_of(pages, first / PAGE + n / 4, lowest, tokens);
            to[i].load(keys + (u64)page * p.page_heads * part_bytes<DIM, CODES>(), n % 4);
        }
    };
    load(0, b[0]);
#pragma unroll
    for (int batch = 0; batch < 8 / AT_ONCE; batch++) {
        if (batch + 1 < 8 / AT_ONCE) load(batch + 1, b[(batch + 1) % 2]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int n = batch * AT_ONCE + i;
            if (CODES && n % 4 == 0) {
                u32 page = page_of(pages, first / PAGE + n / 4, lowest, tokens);
                offsets.load(keys + (u64)page * p.page_heads * part_bytes<DIM, CODES>());
            }
            float(&sum)[4] = s[n];
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] = 0.f;
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++) {
                const uint4 k = b[batch % 2][i].operand(piece, offsets);
                mma_f16(sum, q.a[2 * piece], k.x, k.y);
                mma_f16(sum, q.a[2 * piece + 1], k.z, k.w);
            }
        }
    }
    soften(p, s, first, low, high, e, run);
}

// Values of two tokens, of which the first `left` count. What an earlier owner of the page left behind the last token may be no
// number, and times zero it would still be none.
__device__ __forceinline__ uint4 first_of(uint4 x, int left) {
    const u32 mask = left > 1 ? 0xffffffffu : left == 1 ? 0xffffu : 0u;
    return {x.x & mask, x.y & mask, x.z & mask, x.w & mask};
}

// The values of a block, 32 numbers of a head.
template <int DIM, bool CODES>
struct Values {
    Pair<DIM, CODES> b[4][2];

    __device__ __forceinline__ void load(const Attention& p, const u8* values, const u32* pages, int first, int lowest,
                                         int tokens, int piece) {
#pragma unroll
        for (int step = 0; step < 4; step++) {
            u32 page = page_of(pages, first / PAGE + step / 2, lowest, tokens);
            const u8* v = values + (u64)page * p.page_heads * part_bytes<DIM, CODES>();
#pragma unroll
            for (int half = 0; half < 2; half++) b[step][half].load(v, step % 2 * 8 + 4 * half, piece);
        }
    }

    // Times the exponentials, of a block whose first `left` tokens are there: `out[j]` are queries `g`, `g`, `g + 8`, `g + 8` and numbers `8 t + j`, `8 t + 4 + j`, `8 t + j`,
    // `8 t + 4 + j`.
    __device__ __forceinline__ void weigh(const u32 (&e)[4][4], int left, float (&out)[4][4]) const {
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[j][i] = 0.f;
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint4 x = b[step][0].operand(), y = b[step][1].operand();
            if (left < BLOCK_TOKENS) {
                const int here = left - 16 * step - threadIdx.x % 4 * 2;
                x = first_of(x, here), y = first_of(y, here - 8);
            }
            mma_f16(out[0], e[step], x.x, y.x);
            mma_f16(out[1], e[step], x.y, y.y);
            mma_f16(out[2], e[step], x.z, y.z);
            mma_f16(out[3], e[step], x.w, y.w);
        }
    }
};

// Where number `i` of `out[j]` belongs in a head.
__device__ __forceinline__ int number(int piece, int j, int i) { return 32 * piece + threadIdx.x % 4 * 8 + i % 2 * 4 + j; }

// Puts together the blocks that a row's number `d` of a query has in `partial`, and writes it.
template <int DIM, bool ANY>
__device__ __forceinline__ void put_together(const Attention& p, const float* partial, int queries, int query, int d,
                                             int first_block, int blocks, int row, int query_head) {
    constexpr int STRIDE = DIM + 2;
    Running all = {-INFINITY, 0.f}, span = all;
    float sum = 0.f, x = 0.f, keep, add;
    for (int block = 0; block < blocks; block++) {
        const float* from = partial + (block * queries + query) * STRIDE;
        merge(span, {__ldcg(from + DIM), __ldcg(from + DIM + 1)}, keep, add);
        x = merged(x, __ldcg(from + d), keep, add);
        if ((first_block + block) % SPAN_BLOCKS == SPAN_BLOCKS - 1 || block + 1 == blocks) {
            merge(all, span, keep, add);
            sum = merged(sum, x, keep, add);
            span = {-INFINITY, 0.f}, x = 0.f;
        }
    }
    query_head += query;
    if (d < p.dim) p.out[((u64)row * p.heads + query_head) * p.dim + d] = __fmul_rn(sum, share<ANY>(p, all, query_head));
}

// Few rows: a block of 4 warps for a block of tokens of a row and a tile of a key/value head; x is the block, y the row, z head
// and tile. Everything is on its way at once: each warp multiplies a quarter of the keys, and weighs some numbers of the values.
// Heads too wide for that come 32 numbers after another, and `attend_merge` puts their blocks together.
template <int DIM, bool CODES, bool ANY>
__device__ __forceinline__ void attend_row(const Attention& p) {
    constexpr int STRIDE = DIM + 2, PIECES = DIM / 32, MOST = (PIECES + 3) / 4;
    constexpr bool WIDE = DIM > MOST_TILED;
    __shared__ float products[16][BLOCK_TOKENS + 4];
    __shared__ u32 before;
    wait_for_previous();
    let_next_start();
    const int row = p.rows[blockIdx.y], kv_tiles = (p.group + 15) / 16;
    const int kv = blockIdx.z / kv_tiles, head0 = blockIdx.z % kv_tiles * 16, queries = min(16, p.group - head0);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int position = p.positions[row], tokens = position + 1;
    const int lowest = first_seen<ANY>(p, position);
    const int first_block = lowest / BLOCK_TOKENS, blocks = position / BLOCK_TOKENS - first_block + 1;
    if (blockIdx.x >= blocks) return;
    const int first = (first_block + blockIdx.x) * BLOCK_TOKENS;
    const u32* pages = p.pages + p.tables[row];
    const u8* keys = (const u8*)p.keys + (u64)kv * part_bytes<DIM, CODES>();
    const u8* values = (const u8*)p.values + (u64)kv * part_bytes<DIM, CODES>();
    const u64 head = (u64)row * p.heads + kv * p.group + head0;

    const u8* page = keys + (u64)page_of(pages, first / PAGE + warp / 2, lowest, tokens) * p.page_heads * part_bytes<DIM, CODES>();
    auto query = [&](int r) { return g + 8 * r < queries ? p.q + (head + g + 8 * r) * p.dim : nullptr; };
    auto put = [&](const float(&sum)[4], int i) {
#pragma unroll
        for (int j = 0; j < 4; j++) products[g + j / 2 * 8][16 * warp + 8 * i + 2 * t + j % 2] = sum[j];
    };
    Values<DIM, CODES> v[WIDE ? 1 : MOST];
    if constexpr (WIDE) {
        const float* const of[2] = {query(0), query(1)};
        float sum[2][4] = {};
#pragma unroll 2
        for (int piece = 0; piece < PIECES; piece++) {
            u32 a[2][4];
            query_piece(a, of, piece, p.dim);
            const uint4 offsets = Offsets<DIM, CODES>::piece(page, piece);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                KeyPiece<DIM, CODES> k;
                k.load(page, warp % 2 * 2 + i, piece);
                const uint4 x = k.operand(offsets);
                mma_f16(sum[i], a[0], x.x, x.y);
                mma_f16(sum[i], a[1], x.z, x.w);
            }
        }
        put(sum[0], 0);
        put(sum[1], 1);
    } else {
        Key<DIM, CODES> k[2];
        Offsets<DIM, CODES> offsets;
#pragma unroll
        for (int i = 0; i < 2; i++) k[i].load(page, warp % 2 * 2 + i);
        offsets.load(page);
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (warp + 4 * i < PIECES) v[i].load(p, values, pages, first, lowest, tokens, warp + 4 * i);
        Queries<DIM> q;
        q.load(query, p.dim);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++) {
                const uint4 x = k[i].operand(piece, offsets);
                mma_f16(sum, q.a[2 * piece], x.x, x.y);
                mma_f16(sum, q.a[2 * piece + 1], x.z, x.w);
            }
            put(sum, i);
        }
    }
    __syncthreads();
    float s[8][4];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) s[n][j] = products[g + j / 2 * 8][8 * n + 2 * t + j % 2];
    u32 e[4][4];
    Running run[2];
    const int low[2] = {lowest, lowest}, high[2] = {position, position};
    soften(p, s, first, low, high, e, run);
    float* partial = p.partial + ((u64)blockIdx.y * gridDim.z + blockIdx.z) * p.blocks * min(16, p.group) * STRIDE;
    float* mine = partial + blockIdx.x * queries * STRIDE;
    if (blocks == 1)
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (g + 8 * r < queries) run[r].sum = share<ANY>(p, run[r], kv * p.group + head0 + g + 8 * r);
#pragma unroll(WIDE ? 1 : MOST)
    for (int i = 0; i < MOST; i++) {
        const int piece = warp + 4 * i;
        if (piece >= PIECES) continue;
        float out[4][4];
        if constexpr (WIDE) v[0].load(p, values, pages, first, lowest, tokens, piece);
        v[WIDE ? 0 : i].weigh(e, tokens - first, out);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int query = g + c / 2 * 8, d = number(piece, j, c);
                if (query >= queries) continue;
                if (blocks > 1) mine[query * STRIDE + d] = out[j][c];
                else if (d < p.dim) p.out[(head + query) * p.dim + d] = __fmul_rn(out[j][c], run[c / 2].sum);
            }
    }
    if (blocks == 1) return;
    if (warp == 0 && t == 0)
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (g + 8 * r < queries) {
                float* to = mine + (g + 8 * r) * STRIDE + DIM;
                to[0] = run[r].max, to[1] = run[r].sum;
            }
    if constexpr (!WIDE) {
        // Whoever is last puts the blocks together.
        __threadfence();
        __syncthreads();
        u32* ready = p.ready + blockIdx.y * gridDim.z + blockIdx.z;
        if (threadIdx.x == 0) before = atomicAdd(ready, 1);
        __syncthreads();
        if (before != blocks - 1) return;
        __threadfence();
        if (threadIdx.x == 0) *ready = 0;
        for (int at = threadIdx.x; at < queries * DIM; at += blockDim.x)
            put_together<DIM, ANY>(p, partial, queries, at / DIM, at % DIM, first_block, blocks, row, kv * p.group + head0);
    }
}

// Puts the blocks of wide heads together, after `attend_row`: x is the query of a tile, y the row, z head and tile.
template <int DIM, bool ANY>
__device__ __forceinline__ void attend_merge(const Attention& p) {
    wait_for_previous();
    let_next_start();
    const int row = p.rows[blockIdx.y], kv_tiles = (p.group + 15) / 16;
    const int head0 = blockIdx.z % kv_tiles * 16, queries = min(16, p.group - head0);
    const int position = p.positions[row], first_block = first_seen<ANY>(p, position) / BLOCK_TOKENS;
    const int blocks = position / BLOCK_TOKENS - first_block + 1;
    if (blockIdx.x >= queries || blocks == 1) return;
    const int query_head = blockIdx.z / kv_tiles * p.group + head0;
    const float* partial = p.partial + ((u64)blockIdx.y * gridDim.z + blockIdx.z) * p.blocks * min(16, p.group) * (DIM + 2);
    for (int d = threadIdx.x; d < p.dim; d += blockDim.x)
        put_together<DIM, ANY>(p, partial, queries, blockIdx.x, d, first_block, blocks, row, query_head);
}

// Prompts: a warp for a tile; x is 4 tiles, y the key/value head.
template <int DIM, bool CODES, bool ANY>
__device__ __forceinline__ void attend_tiles(const Attention& p, int tiles) {
    // Whether shares are computed before the last numbers are. That is 5 % faster for heads of 128 numbers and 3 % slower for those of
    // 64 (512 rows on an H200).
    constexpr bool ONCE = ANY || DIM == 128;
    extern __shared__ float shared[];  // [4][16][DIM]: the sums of whole spans
    wait_for_previous();
    let_next_start();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
    const int index = blockIdx.x * 4 + warp;
    if (index >= tiles) return;
    const u32* tile = p.tiles + 3 * index;
    const int first_row = tile[0], queries = tile[1] * p.group, query0 = tile[2] * 16, kv = blockIdx.y;
    float* whole = shared + warp * 16 * DIM;
    int low[2], high[2];
    u64 head[2];
    bool there[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int query = query0 + g + 8 * r;
        there[r] = query < queries;
        query = min(query, queries - 1);
        int row = first_row + query / p.group;
        high[r] = p.positions[row];
        low[r] = first_seen<ANY>(p, high[r]);
        head[r] = (u64)row * p.heads + kv * p.group + query % p.group;
    }
    const int last_query = min(query0 + 15, queries - 1);
    const int tokens = p.positions[first_row + last_query / p.group] + 1;
    const int lowest = first_seen<ANY>(p, p.positions[first_row + query0 / p.group]);
    const u32* pages = p.pages + p.tables[first_row];
    const u8* keys = (const u8*)p.keys + (u64)kv * part_bytes<DIM, CODES>();
    const u8* values = (const u8*)p.values + (u64)kv * part_bytes<DIM, CODES>();

    Queries<DIM> q;
    q.load([&](int r) { return there[r] ? p.q + head[r] * p.dim : nullptr; }, p.dim);
    Running all[2] = {{-INFINITY, 0.f}, {-INFINITY, 0.f}};
    const int first_span = lowest / SPAN_TOKENS, last_span = (tokens - 1) / SPAN_TOKENS;
    float sum[DIM / 32][4][4];
    for (int span = first_span; span <= last_span; span++) {
        Running run[2] = {{-INFINITY, 0.f}, {-INFINITY, 0.f}};
#pragma unroll
        for (int piece = 0; piece < DIM / 32; piece++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[piece][j][i] = 0.f;
        for (int block = 0; block < SPAN_BLOCKS; block++) {
            int first = span * SPAN_TOKENS + block * BLOCK_TOKENS;
            if (first >= tokens || first + BLOCK_TOKENS <= lowest) continue;
            u32 e[4][4];
            Running other[2];
            scores<DIM, CODES>(p, q, keys, pages, first, low, high, lowest, tokens, e, other);
            float keep[2], add[2];
#pragma unroll
            for (int r = 0; r < 2; r++) merge(run[r], other[r], keep[r], add[r]);
#pragma unroll
            for (int piece = 0; piece < DIM / 32; piece++) {
                float out[4][4];
                Values<DIM, CODES> v;
                v.load(p, values, pages, first, lowest, tokens, piece);
                v.weigh(e, tokens - first, out);
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        sum[piece][j][i] = merged(sum[piece][j][i], out[j][i], keep[i / 2], add[i / 2]);
            }
        }
        float keep[2], add[2];
#pragma unroll
        for (int r = 0; r < 2; r++) merge(all[r], run[r], keep[r], add[r]);
        bool only = first_span == last_span;
        if (ONCE && span == last_span)
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (there[r]) all[r].sum = share<ANY>(p, all[r], kv * p.group + (query0 + g + 8 * r) % p.group);
#pragma unroll
        for (int piece = 0; piece < DIM / 32; piece++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float* w = whole + (g + i / 2 * 8) * DIM + number(piece, j, i);
                    float before = only || span == first_span ? 0.f : *w;
                    float x = only ? sum[piece][j][i] : merged(before, sum[piece][j][i], keep[i / 2], add[i / 2]);
                    if (span < last_span) *w = x;
                    else if (there[i / 2] && number(piece, j, i) < p.dim)
                        p.out[head[i / 2] * p.dim + number(piece, j, i)] = __fmul_rn(x, ONCE ? all[i / 2].sum : __frcp_rn(all[i / 2].sum));
                }
    }
}

// Least blocks on a multiprocessor, which bound the registers of a thread, where the compiler by itself is a few registers above;
// 0 leaves it to the compiler, which is better everywhere else.
constexpr int row_blocks(int dim) { return dim == 128 ? 4 : 0; }

#define ATTEND_ROW(KIND, DIM, CODES, ANY)                                                                            \
    extern "C" __global__ void __launch_bounds__(128, row_blocks(DIM))                                               \
        attend_row_##KIND##DIM(const __grid_constant__ Attention p) {                                                \
        attend_row<DIM, CODES, ANY>(p);                                                                              \
    }
#define ATTEND_PAGES(KIND, DIM, CODES, ANY)                                                                          \
    ATTEND_ROW(KIND, DIM, CODES, ANY)                                                                                \
    extern "C" __global__ void __launch_bounds__(128)                                                                \
        attend_tiles_##KIND##DIM(const __grid_constant__ Attention p, int tiles) {                                   \
        attend_tiles<DIM, CODES, ANY>(p, tiles);                                                                     \
    }
#define ATTEND(DIM)                                                                                                  \
    ATTEND_PAGES(, DIM, false, false)                                                                                \
    ATTEND_PAGES(codes_, DIM, true, false)                                                                           \
    ATTEND_PAGES(any_, DIM, false, true)                                                                             \
    ATTEND_PAGES(any_codes_, DIM, true, true)
ATTEND(32)
ATTEND(64)
ATTEND(96)
ATTEND(128)
ATTEND(192)
ATTEND(256)
ATTEND_ROW(any_, 576, false, true)
ATTEND_ROW(any_codes_, 576, true, true)
extern "C" __global__ void __launch_bounds__(192) attend_merge_576(const __grid_constant__ Attention p) {
    attend_merge<576, true>(p);
}

// Single-precision pages, exact and slow: a block of one warp for each head of each row, token after token.
// `MOST` numbers of a head are on one lane.
template <int MOST>
__device__ __forceinline__ void attend_floats(const Attention& p, int padded) {
    wait_for_previous();
    let_next_start();
    int head = blockIdx.x, row = blockIdx.y, lane = threadIdx.x, kv = head / p.group;
    const float* q = p.q + ((u64)row * p.heads + head) * p.dim;
    int position = p.positions[row], low = first_seen<true>(p, position);
    float mine[MOST], sum[MOST];
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        int d = i * 32 + lane;
        mine[i] = d < p.dim ? q[d] : 0.f, sum[i] = 0.f;
    }
    Running run = {-INFINITY, 0.f};
    for (int token = low; token <= position; token++) {
        u64 block = ((u64)p.pages[p.tables[row] + token / PAGE] * p.page_heads + kv) * PAGE * padded;
        const float* k = (const float*)p.keys + block + (u64)(token % PAGE) * padded;
        const float* v = (const float*)p.values + block + (u64)(token % PAGE / 2) * padded * 2 + token % 2;
        float dot = 0.f;
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            int d = i * 32 + lane;
            if (d < p.dim) dot = fmaf(mine[i], k[d], dot);
        }
        float score = warp_sum(dot) * p.scale;
        if (p.cap > 0.f) score = tanhf(score / p.cap) * p.cap;
        float max = fmaxf(run.max, score);
        float keep = run.max == -INFINITY ? 0.f : expf(run.max - max), add = expf(score - max);
        run.sum = fmaf(run.sum, keep, add), run.max = max;
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            int d = i * 32 + lane;
            if (d < p.dim) sum[i] = fmaf(sum[i], keep, add * v[d * 2]);
        }
    }
    // The sink's share of the softmax, which has no value.
    float keep = 1.f;
    if (p.sinks) {
        float max = fmaxf(run.max, p.sinks[head]);
        keep = expf(run.max - max);
        run.sum = fmaf(run.sum, keep, expf(p.sinks[head] - max));
    }
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        int d = i * 32 + lane;
        if (d < p.dim) p.out[((u64)row * p.heads + head) * p.dim + d] = sum[i] * keep / run.sum;
    }
}

extern "C" __global__ void attend_f32(const __grid_constant__ Attention p, int padded) { attend_floats<8>(p, padded); }
extern "C" __global__ void attend_f32_wide(const __grid_constant__ Attention p, int padded) { attend_floats<18>(p, padded); }
