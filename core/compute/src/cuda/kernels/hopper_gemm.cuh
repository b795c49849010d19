// Products for many rows on Hopper: what a block of threads does.
//
// It has WGS groups of four warps and one thread that copies. A group multiplies 64 outputs with up to ROWS rows by `wgmma`:
// weights are the left operand, in registers, activations the right one, in shared memory. The copying thread keeps
// rings of both filled by the copy engine, so that bytes are on their way whatever the others do, and goes on to the block's
// next outputs without a pause. It is one thread, and few large copies: each takes it up to a hundred cycles.
//
// Grouped products have the rows of each segment of a mixture's table (see `experts.cuh`) one after the other in their form, `block`
// of them for a segment, and each segment has its own expert's matrices.
#pragma once

#include "experts.cuh"
#include "hopper_ring.cuh"
#include "hopper_sums.cuh"
#include "jobs.cuh"

struct Groups {
    const int* count;  // of segments
    const Segment* segments;
    // What sums are multiplied with, by place; null for 1.
    const float* weights;
    u64 expert_bytes;
    int block;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// A block's work: some outputs of a matrix, and some rows.
struct Place {
    const Job* job;
    int together;
    int most;
    int first_row;
    // Of grouped products: how many rows, the first one's place, and the expert.
    int rows, place, expert;

    __device__ __forceinline__ void find_outputs(const Products& p, int block, int groups) {
        job = &job_of(p, block);
        together = (block - job->first_block) * groups;
        most = (job->outputs + TOGETHER * TILE - 1) / (TOGETHER * TILE) - 1;
    }
    // Piece of work `index`; rows come first, so that those with the same weights follow each other.
    __device__ __forceinline__ Place(const Products& p, int index, int row_blocks, int groups, int most_rows) {
        find_outputs(p, index / row_blocks, groups);
        first_row = index % row_blocks * most_rows;
        rows = most_rows, place = 0, expert = 0;
    }
    // Outputs come first, so that the segments of one expert follow each other.
    __device__ __forceinline__ Place(const Products& p, const Groups& g, int index, int blocks, int groups, int most_rows) {
        find_outputs(p, index % blocks, groups);
        const int row_blocks = g.block / most_rows, unit = index / blocks, segment = unit / row_blocks;
        const Segment s = g.segments[segment];
        const int skip = unit % row_blocks * most_rows;
        first_row = segment * g.block + skip;
        rows = min(s.count - skip, most_rows), place = s.first + skip, expert = s.expert;
    }

    // Bytes of all columns of the outputs of group `g`; past the last it is a copy of it.
    __device__ __forceinline__ const u8* weights(const Groups& groups, int g) const {
        return job->weight + expert * groups.expert_bytes + min(together + g, most) * (TOGETHER * job->tile_row_bytes);
    }
};

// What a group of warps reads, and how it adds up.
template <class F, int WGS, int ROWS, bool GROUPED, class Main, class Rows>
struct Group {
    typedef Layout<F, WGS, ROWS> L;
    const Products& p;
    const Groups& g;
    Main& main;
    Rows& rows;
    // What address 0 of shared memory would be.
    const u8* const zero;

    __device__ __forceinline__ const u8* stage() const { return zero + main.at(); }
    // This warp's tile of `bytes`.
    __device__ __forceinline__ const u8* tile(int bytes) const {
        const int warp = threadIdx.x / 32;
        return stage() + L::WEIGHTS + warp / TOGETHER * L::GROUP + warp % TOGETHER * bytes;
    }
    __device__ __forceinline__ const u8* tile() const { return tile(L::GROUP / TOGETHER); }

    template <int N>
    __device__ __forceinline__ void halves(Sums<F, N>& sums) {
        const int quarters = p.x.padded / QUARTER;
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
    }

    template <int N>
    __device__ __forceinline__ void codes32(Sums<F, N>& sums) {
        for (int chunk = 0; chunk < p.x.chunks; chunk++) {
            const int quarters = quarters_of(p.x, chunk);
            main.wait_full();
            for (int q = 0; q < quarters; q++) {
                rows.wait_full();
                sums.codes32(tile(F::bytes(quarters)), q, quarters, rows.at(), zero + rows.at() + L::ATOM, ROWS * 4);
                rows.next();
                rows.done_before();
            }
            sums.end_of_chunk32();
            main.next();
            main.done_before();
        }
    }

    template <int N>
    __device__ __forceinline__ void multiply(const Place& at) {
        Sums<F, N> sums;
        sums.clear();
        if constexpr (L::HALVES) {
            halves(sums);
        } else if constexpr (F::by32) {
            codes32(sums);
        } else {
            for (int chunk = 0; chunk < p.x.chunks; chunk++) {
                main.wait_full();
                if constexpr (F::codes == U4) sums.codes4(tile(), main.at() + L::SUMS, stage() + L::FACTORS, rows);
                else sums.codes6(tile(), stage() + L::FACTORS, rows);
                main.next();
                main.done_before();
            }
        }
        store(at, sums);
    }

    // Puts the results where they belong: the same operations as `finish` and `Unit::finish`. What is there already is loaded for
    // several of them at a time.
    template <int N>
    __device__ __forceinline__ void store(const Place& at, const Sums<F, N>& sums) const {
        const Job& job = *at.job;
        const int t = threadIdx.x % 4, output = (at.together * TOGETHER + threadIdx.x / 32) * TILE + threadIdx.x % 32 / 4;
        const int first_row = GROUPED ? at.place : at.first_row, rows = (GROUPED ? at.rows : p.rows - first_row) - 2 * t;
        const bool inside[2] = {output < job.outputs, output + 8 < job.outputs};
        float* const out = job.out + (u64)(first_row + 2 * t) * job.outputs + output;
        const bool biased = job.bias, weighted = GROUPED && g.weights, add = !GROUPED && job.accumulate;
        float bias[2] = {0.f, 0.f};
        if (biased) {
            const float* from = job.bias + (u64)at.expert * job.outputs + output;
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (inside[r]) bias[r] = from[8 * r];
        }
        constexpr int AT_ONCE = N / 8 < 4 ? N / 8 : 4;
#pragma unroll
        for (int first = 0; first < N / 8; first += AT_ONCE) {
            float old[AT_ONCE][4];
            auto is_there = [&](int n, int i) { return 8 * (first + n) + i % 2 < rows && inside[i / 2]; };
            auto offset = [&](int n, int i) { return (8 * (first + n) + i % 2) * job.outputs + i / 2 * 8; };
            float weight[AT_ONCE][2];
            if (weighted) {
#pragma unroll
                for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
                    for (int i = 0; i < 2; i++) weight[n][i] = is_there(n, i) ? g.weights[first_row + 2 * t + 8 * (first + n) + i] : 0.f;
            }
            if (add) {
#pragma unroll
                for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) old[n][i] = is_there(n, i) ? out[offset(n, i)] : 0.f;
            }
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float value = __fmul_rn(sums.total[4 * (first + n) + i], job.factor);
                    if (weighted) value = __fmul_rn(value, weight[n][i % 2]);
                    if (biased) value = __fadd_rn(value, bias[i / 2]);
                    if (add) value = __fadd_rn(old[n][i], value);
                    if (is_there(n, i)) out[offset(n, i)] = value;
                }
        }
    }
};

template <class F, int WGS, int ROWS, int STAGES, int ROW_STAGES, bool GROUPED>
__device__ __forceinline__ void group_gemm(const Products& p, const Groups& g, int row_blocks, int blocks) {
    typedef Layout<F, WGS, ROWS> L;
    typedef Ring<STAGES, L::BYTES> Main;
    typedef Ring<ROW_STAGES, L::ROW_BYTES> Rows;
    typedef Reader<Main, true> MainReader;
    typedef Reader<Rows, F::by32> RowsReader;
    extern __shared__ u8 space[];
    __shared__ u64 full[STAGES + ROW_STAGES], empty[STAGES + ROW_STAGES];
    const int warp = threadIdx.x / 32;
    const u32 base = (shared_address(space) + 1023) & ~1023u;
    // Rows first: they begin at a multiple of 1024.
    Rows rows(base, full + STAGES, empty + STAGES);
    Main ring(base + ROW_STAGES * L::ROW_BYTES, full, empty);
    if (threadIdx.x == 0) {
        ring.init(MainReader::OF_GROUP * WGS), rows.init(RowsReader::OF_GROUP * WGS);
        barriers_ready();
    }
    __syncthreads();
    auto count_work = [&]() { return GROUPED ? *g.count * (g.block / ROWS) * blocks : row_blocks * blocks; };
    auto place = [&](int index) {
        if constexpr (GROUPED) return Place(p, g, index, blocks, WGS, ROWS);
        else return Place(p, index, row_blocks, WGS, ROWS);
    };

    if (warp >= 4 * WGS) {
        if constexpr (WGS > 1) give_registers<24>();
        if (threadIdx.x == 128 * WGS) {
            const Forms& x = p.x;
            const int quarters = x.padded / QUARTER, pieces = L::HALVES ? quarters : x.chunks;
            const int room = L::HALVES ? x.room16 : F::by32 ? x.room32 : x.room256;
            // Rows are copied eight at a time.
            auto rows_of = [&](const Place& at) { return GROUPED ? (at.rows + 7) / 8 * 8 : ROWS; };
            auto has_factors = [&](int piece) { return !F::by32 && (!L::HALVES || piece % 4 == 3 || piece + 1 == pieces); };
            // Quarter `q` of the rows.
            auto atom = [&](const Place& at, u32 to, const u8* tiles, int q, u32 barrier) {
                bulk_copy(to, tiles + ((u64)q * room + at.first_row) * 128, rows_of(at) * 128, barrier);
            };
            auto weights = [&](const Place& at, int piece) {
                u32 own = L::GROUP, others = rows_of(at) * (L::SUM_BYTES + (L::HALVES ? 128 : 0) + (has_factors(piece) ? 4 : 0));
                if constexpr (F::by32) own = TOGETHER * F::bytes(quarters_of(x, piece));
                arrive_expecting(ring.filled(), WGS * own + others);
#pragma unroll
                for (int i = 0; i < WGS; i++)
                    bulk_copy(ring.at() + L::WEIGHTS + i * L::GROUP, at.weights(g, i) + (u64)piece * L::GROUP, own, ring.filled());
            };
            auto others = [&](const Place& at, int piece) {
                const u64 row = (u64)(L::HALVES ? piece / 4 : piece) * room + at.first_row;
                if (L::HALVES) atom(at, ring.at(), x.t16, piece, ring.filled());
                if (F::min) bulk_copy(ring.at() + L::SUMS, x.tsums + row * 32, rows_of(at) * 32, ring.filled());
                if (has_factors(piece))
                    bulk_copy(ring.at() + L::FACTORS, (L::HALVES ? x.tscale16 : x.td256) + row, rows_of(at) * 4, ring.filled());
            };
            auto quarters_of_rows = [&](const Place& at, int piece) {
                for (int q = 4 * piece; q < min(4 * piece + 4, quarters); q++) {
                    rows.wait_empty();
                    arrive_expecting(rows.filled(), rows_of(at) * (F::by32 ? 136 : 128));
                    atom(at, rows.at(), F::by32 ? x.t32 : x.t256, q, rows.filled());
                    if constexpr (F::by32) {
#pragma unroll
                        for (int b = 0; b < 2; b++)
                            bulk_copy(rows.at() + L::ATOM + b * ROWS * 4, x.td32 + (u64)(2 * q + b) * room + at.first_row, rows_of(at) * 4, rows.filled());
                    }
                    rows.next();
                }
            };
            int early = 0;
            if constexpr (!GROUPED) {
                // Weights do not depend on the kernels before this one.
                const Place at = place(blockIdx.x);
                early = min(STAGES, pieces);
                Main start = ring;
                for (int piece = 0; piece < early; piece++, ring.next()) weights(at, piece);
                wait_for_previous();
                let_next_start();
                Main then = ring;
                ring = start;
                for (int piece = 0; piece < early; piece++, ring.next()) others(at, piece);
                ring = then;
            } else {
                wait_for_previous();
                let_next_start();
            }
            const int work = count_work();
            for (int index = blockIdx.x; index < work; index += gridDim.x, early = 0) {
                const Place at = place(index);
                if (GROUPED && at.rows <= 0) continue;
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
        }
        return;
    }

    if constexpr (WGS > 1) take_registers<240>();
    wait_for_previous();
    let_next_start();
    RowsReader read(rows);
    MainReader main(ring);
    Group<F, WGS, ROWS, GROUPED, MainReader, RowsReader> group{p, g, main, read, space - shared_address(space)};
    const int work = count_work();
    for (int index = blockIdx.x; index < work; index += gridDim.x) {
        const Place at = place(index);
        if (GROUPED && at.rows <= 0) continue;
        // A segment's last rows may be few.
        if (GROUPED && ROWS > 64 && at.rows <= 64) group.template multiply<(ROWS > 64 ? 64 : ROWS)>(at);
        else group.template multiply<ROWS>(at);
    }
}
#endif
