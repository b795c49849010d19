// Products for many rows on Hopper, of the formats that matter most: F16 (and BF16), Q4_K and Q6_K.
//
// A block of threads has WGS groups of four warps and one thread that copies. A group multiplies 64 outputs with ROWS rows by
// `wgmma`: weights are the left operand, in registers, activations the right one, in shared memory. The copying thread keeps
// rings of both filled by the copy engine, so that bytes are on their way whatever the others do, and goes on to the block's
// next outputs without a pause. It is one thread, and few large copies: each takes it up to a hundred cycles.
//
// **The same bits as every other kernel.** For half floats a chunk is 16 products of 16 columns one after the other, as in
// `chunk.cuh`; `wgmma` and `mma.sync` round alike (a test compares them). For codes all is exact: weights become
// integers in half floats, code times integer scale, so that tensor cores add them up. Sums stay below 2^24:
//
// - Q4_K: code · scale is at most 15 · 63; times 127 for 128 columns that is 15,361,920. Both halves of a chunk are added in
//   one rounding, as the integer sum is rounded. The minimums times the sums of activations are whole numbers, too.
// - Q6_K: the scale is 16 · high + low, both by themselves: 15 · 32 · 127 · 256 is 15,605,760. One more rounding, of
//   16 · high + low, is that of the integer sum.

#include "hopper.cuh"
#include "hopper_weights.cuh"
#include "jobs.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Where things are in shared memory. Half floats: a ring of quarters, rows first (swizzled rows begin at a multiple of 1024), then
// weights, then the rows' factors. Codes: a ring of chunks of weights and what belongs to a row's chunk, and one of quarters of
// rows, which are free again sooner.
template <class F, int WGS, int ROWS>
struct Layout {
    static constexpr bool HALVES = F::codes == HALF;
    static constexpr int ATOM = ROWS * 128;
    static constexpr int GROUP = TOGETHER * (HALVES ? F::bytes(1) : F::bytes(4));
    static constexpr int WEIGHTS = HALVES ? ATOM : 0;
    // Of each row the sums of 16 codes, where they are needed, and factors.
    static constexpr int SUMS = WEIGHTS + WGS * GROUP;
    static constexpr int SUM_BYTES = F::min ? ROWS * 32 : 0;
    static constexpr int FACTORS = SUMS + SUM_BYTES;
    static constexpr int BYTES = (FACTORS + ROWS * 4 + 1023) / 1024 * 1024;
};

// What a group works on: some outputs of a matrix, and some rows.
struct Place {
    const Job* job;
    int together;
    int most;
    int first_row;

    // Piece of work `index`; rows come first, so that those with the same weights follow each other.
    __device__ __forceinline__ Place(const Products& p, int index, int row_blocks, int groups, int rows) {
        int block = index / row_blocks;
        job = &job_of(p, block);
        together = (block - job->first_block) * groups;
        most = (job->outputs + TOGETHER * TILE - 1) / (TOGETHER * TILE) - 1;
        first_row = index % row_blocks * rows;
    }

    // Bytes of all columns of the outputs of group `g`; past the last it is a copy of it.
    __device__ __forceinline__ const u8* weights(int g) const {
        return job->weight + min(together + g, most) * (TOGETHER * job->tile_row_bytes);
    }
};

// A ring of pieces of shared memory: where the copying thread is, or a group.
template <int STAGES, int BYTES>
struct Ring {
    u32 data, full, empty;
    int slot = 0;
    u32 parity = 0;

    __device__ __forceinline__ Ring(u32 data, u64* full, u64* empty)
        : data(data), full(shared_address(full)), empty(shared_address(empty)) {}

    __device__ __forceinline__ void init(int readers) const {
        for (int i = 0; i < STAGES; i++) barrier_init(full + 8 * i, 1), barrier_init(empty + 8 * i, readers);
    }
    __device__ __forceinline__ void next() {
        if (++slot == STAGES) slot = 0, parity ^= 1;
    }
    __device__ __forceinline__ u32 at() const { return data + slot * BYTES; }
    __device__ __forceinline__ u32 filled() const { return full + 8 * slot; }
    // The copying thread: until the piece may be written. In the first round it may.
    __device__ __forceinline__ void wait_empty() const { wait(empty + 8 * slot, parity ^ 1); }
    __device__ __forceinline__ void wait_full() const { wait(full + 8 * slot, parity); }
};

// Adds up what a group of warps computes.
template <class F, int ROWS>
struct Sums {
    static constexpr int N = ROWS / 2;
    float total[N];
    float chunk[N];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < N; i++) total[i] = 0.f;
    }

    static __device__ __forceinline__ float2 factors(const u8* from, int n) {
        return *(const float2*)(from + (8 * n + 2 * (threadIdx.x % 4)) * 4);
    }

    // Q4_K: a chunk.
    template <class Rows>
    __device__ __forceinline__ void codes4(const u8* tile, u32 sums_at, const u8* from, Rows& rows) {
        Weights4 w;
        w.load(tile);
        float other[N], low[N];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            u32 a[4][4];
            w.unpack(q, a);
            rows.wait_full();
            products_fence();
#pragma unroll
            for (int i = 0; i < 4; i++)
                group_product<ROWS>(q < 2 ? chunk : other, a[i], row_operand(rows.at() + i * 32), q % 2 + i > 0);
            if (q == 3) {
                u32 mins[4];
                w.minimums(mins);
                products_fence();
                group_product<ROWS>(low, mins, sum_operand(sums_at), 0);
            }
            products_commit();
            products_wait<1>();
            if (q > 0) rows.done_before();
            rows.next();
        }
        const float d[2] = {half_bits(w.d.x), half_bits(w.d.y)}, dmin[2] = {half_bits(w.d.x >> 16), half_bits(w.d.y >> 16)};
        products_wait<0>();
        rows.done_before();
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 dx = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = 4 * n + i;
                float x = __fmul_rn(__fadd_rn(chunk[at], other[at]), d[i / 2]);
                x = __fmaf_rn(-low[at], dmin[i / 2], x);
                total[at] = __fadd_rn(total[at], __fmul_rn(x, i % 2 ? dx.y : dx.x));
            }
        }
    }

    // Q6_K.
    template <class Rows>
    __device__ __forceinline__ void codes6(const u8* tile, const u8* from, Rows& rows) {
        Weights6 w;
        w.load(tile);
        float upper[N];
#pragma unroll
        for (int q = 0; q < 4; q++) {
#pragma unroll
            for (int b = 0; b < 2; b++) {
                u32 high[2][4], low[2][4];
#pragma unroll
                for (int half = 0; half < 2; half++) w.unpack(q, b, half, high[half], low[half]);
                if (b == 0) rows.wait_full();
                products_fence();
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    u64 operand = row_operand(rows.at() + b * 64 + half * 32);
                    group_product<ROWS>(upper, high[half], operand, q + b + half > 0);
                    group_product<ROWS>(chunk, low[half], operand, q + b + half > 0);
                }
                products_commit();
                products_wait<1>();
                if (b == 0 && q > 0) rows.done_before();
            }
            rows.next();
        }
        const float d[2] = {half_bits(w.d), half_bits(w.d >> 16)};
        products_wait<0>();
        rows.done_before();
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 dx = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = __fmul_rn(__fmaf_rn(16.f, upper[4 * n + i], chunk[4 * n + i]), d[i / 2]);
                total[4 * n + i] = __fadd_rn(total[4 * n + i], __fmul_rn(x, i % 2 ? dx.y : dx.x));
            }
        }
    }

    // Half floats: the products of a quarter are started.
    __device__ __forceinline__ void halves(u32 rows_at, const u8* tile, bool first) {
        uint4 w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = load16(tile + i * 512 + threadIdx.x % 32 * 16);
        products_fence();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 a[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
            group_product<ROWS>(chunk, a, row_operand(rows_at + i * 32), i > 0 || !first);
        }
        products_commit();
    }

    // The end of a chunk of half floats.
    __device__ __forceinline__ void scale(const u8* from) {
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 s = factors(from, n);
#pragma unroll
            for (int i = 0; i < 4; i++)
                total[4 * n + i] = __fadd_rn(total[4 * n + i], __fmul_rn(chunk[4 * n + i], i % 2 ? s.y : s.x));
        }
    }

    __device__ __forceinline__ void store(const Products& p, const Place& at, int tile) const {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = at.first_row + 8 * n + 2 * t + i % 2, output = tile * TILE + g + i / 2 * 8;
                if (row < p.rows && output < at.job->outputs) finish(*at.job, row, output, total[4 * n + i]);
            }
    }
};

// A ring as a group reads it. What it has read it gives back later, when its products have ended: what threads read, too, each
// thread by itself, as that is the order that `racecheck` follows; what only tensor cores read, warp by warp.
template <class R, bool BY_THREADS>
struct Reader : R {
    // How many of a group give a piece back.
    static constexpr int OF_GROUP = BY_THREADS ? 128 : 4;
    int before = 0;

    __device__ __forceinline__ Reader(const R& ring) : R(ring) {}
    __device__ __forceinline__ void next() {
        before = R::slot;
        R::next();
    }
    __device__ __forceinline__ void done_before() const {
        if (BY_THREADS || threadIdx.x % 32 == 0) arrive(R::empty + 8 * before);
    }
};

template <class F, int WGS, int ROWS, int STAGES, int ROW_STAGES>
__device__ __forceinline__ void group_gemm(const Products& p, int row_blocks, int blocks) {
    typedef Layout<F, WGS, ROWS> L;
    typedef Ring<STAGES, L::BYTES> Main;
    typedef Ring<ROW_STAGES, L::ATOM> Rows;
    typedef Reader<Main, true> MainReader;
    typedef Reader<Rows, false> RowsReader;
    extern __shared__ u8 space[];
    __shared__ u64 full[STAGES + ROW_STAGES], empty[STAGES + ROW_STAGES];
    const int warp = threadIdx.x / 32, work = row_blocks * blocks;
    const int quarters = p.x.padded / QUARTER, chunks = p.x.chunks;
    const u32 base = (shared_address(space) + 1023) & ~1023u;
    const u8* shared = space + (base - shared_address(space));
    // Rows first: they begin at a multiple of 1024.
    Rows rows(base, full + STAGES, empty + STAGES);
    Main ring(base + ROW_STAGES * L::ATOM, full, empty);
    if (threadIdx.x == 0) {
        ring.init(MainReader::OF_GROUP * WGS), rows.init(RowsReader::OF_GROUP * WGS);
        barriers_ready();
    }
    __syncthreads();

    if (warp >= 4 * WGS) {
        if constexpr (WGS > 1) give_registers<WGS == 2 ? 40 : 32>();
        if (threadIdx.x != 128 * WGS) return;
        // The copying thread. Weights do not depend on the kernels before this one.
        const Forms& x = p.x;
        const int pieces = L::HALVES ? quarters : chunks;
        auto has_factors = [&](int piece) { return !L::HALVES || piece % 4 == 3 || piece + 1 == pieces; };
        auto weights = [&](const Place& at, int piece) {
            const u32 others = (L::HALVES ? L::ATOM : 0) + L::SUM_BYTES + (has_factors(piece) ? ROWS * 4 : 0);
            arrive_expecting(ring.filled(), WGS * L::GROUP + others);
#pragma unroll
            for (int g = 0; g < WGS; g++)
                bulk_copy(ring.at() + L::WEIGHTS + g * L::GROUP, at.weights(g) + (u64)piece * L::GROUP, L::GROUP, ring.filled());
        };
        auto others = [&](const Place& at, int piece) {
            const int room = L::HALVES ? x.room16 : x.room256, chunk = L::HALVES ? piece / 4 : piece;
            const u64 row = (u64)chunk * room + at.first_row;
            if (L::HALVES) bulk_copy(ring.at(), x.t16 + ((u64)piece * room + at.first_row) * 128, L::ATOM, ring.filled());
            if (F::min) bulk_copy(ring.at() + L::SUMS, x.tsums + row * 32, L::SUM_BYTES, ring.filled());
            if (has_factors(piece))
                bulk_copy(ring.at() + L::FACTORS, (L::HALVES ? x.tscale16 : x.td256) + row, ROWS * 4, ring.filled());
        };
        auto quarters_of_rows = [&](const Place& at, int piece) {
            for (int q = 4 * piece; q < 4 * piece + 4; q++) {
                rows.wait_empty();
                arrive_expecting(rows.filled(), L::ATOM);
                bulk_copy(rows.at(), x.t256 + ((u64)q * x.room256 + at.first_row) * 128, L::ATOM, rows.filled());
                rows.next();
            }
        };
        Place at(p, blockIdx.x, row_blocks, WGS, ROWS);
        const int ahead = min(STAGES, pieces);
        Main start = ring;
        for (int piece = 0; piece < ahead; piece++, ring.next()) weights(at, piece);
        wait_for_previous();
        let_next_start();
        Main then = ring;
        ring = start;
        for (int piece = 0; piece < ahead; piece++, ring.next()) others(at, piece);
        ring = then;
        int early = ahead;
        for (int index = blockIdx.x; index < work; index += gridDim.x, early = 0) {
            Place at(p, index, row_blocks, WGS, ROWS);
            for (int piece = 0; piece < pieces; piece++) {
                if (piece >= early) {
                    ring.wait_empty();
                    weights(at, piece);
                    others(at, piece);
                    ring.next();
                }
                if constexpr (!L::HALVES) quarters_of_rows(at, piece);
            }
        }
        return;
    }

    if constexpr (WGS > 1) take_registers<WGS == 2 ? 232 : 160>();
    wait_for_previous();
    let_next_start();
    RowsReader read(rows);
    MainReader main(ring);
    Sums<F, ROWS> sums;
    for (int index = blockIdx.x; index < work; index += gridDim.x) {
        Place at(p, index, row_blocks, WGS, ROWS);
        sums.clear();
        auto stage = [&]() { return shared + (main.at() - base); };
        auto tile = [&]() { return stage() + L::WEIGHTS + warp * (L::GROUP / TOGETHER); };
        if constexpr (L::HALVES) {
            for (int chunk = 0; chunk < quarters / 4; chunk++) {
                const u8* last = nullptr;
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    main.wait_full();
                    sums.halves(main.at(), tile(), q == 0);
                    products_wait<1>();
                    if (q > 0) main.done_before();
                    last = stage();
                    main.next();
                }
                products_wait<0>();
                sums.scale(last + L::FACTORS);
                main.done_before();
            }
            // What is left of a last chunk.
            for (int q = 0; q < quarters % 4; q++) {
                main.wait_full();
                sums.halves(main.at(), tile(), q == 0);
                products_wait<0>();
                if (q + 1 == quarters % 4) sums.scale(stage() + L::FACTORS);
                main.next();
                main.done_before();
            }
        } else {
            for (int chunk = 0; chunk < chunks; chunk++) {
                main.wait_full();
                if constexpr (F::codes == U4) sums.codes4(tile(), main.at() + L::SUMS, stage() + L::FACTORS, read);
                else sums.codes6(tile(), stage() + L::FACTORS, read);
                main.next();
                main.done_before();
            }
        }
        sums.store(p, at, at.together * TOGETHER + warp);
    }
}

#define BODY(...) group_gemm<__VA_ARGS__>(p, row_blocks, blocks);
#else
#define BODY(...)
#endif

// One kernel for a format, groups of 64 outputs and rows. The host has the same list.
#define HOPPER(NAME, F, WGS, ROWS, STAGES, ROW_STAGES)                                                               \
    extern "C" __global__ void __launch_bounds__(WGS > 1 ? 128 * WGS + 128 : 160, 1)                                                  \
        NAME##_##WGS##_##ROWS(const __grid_constant__ Products p, int row_blocks, int blocks) {                      \
        BODY(F, WGS, ROWS, STAGES, ROW_STAGES)                                                                       \
    }
HOPPER(hopper_f16, F16, 1, 16, 16, 0)
HOPPER(hopper_f16, F16, 1, 32, 14, 0)
HOPPER(hopper_f16, F16, 1, 64, 12, 0)
HOPPER(hopper_f16, F16, 2, 64, 8, 0)
HOPPER(hopper_f16, F16, 2, 128, 6, 0)
HOPPER(hopper_q4k, Q4_K, 1, 32, 8, 24)
HOPPER(hopper_q4k, Q4_K, 1, 64, 5, 16)
HOPPER(hopper_q4k, Q4_K, 2, 64, 4, 16)
HOPPER(hopper_q4k, Q4_K, 3, 64, 3, 16)
HOPPER(hopper_q6k, Q6_K, 1, 32, 7, 24)
HOPPER(hopper_q6k, Q6_K, 1, 64, 5, 16)
HOPPER(hopper_q6k, Q6_K, 2, 64, 3, 16)
