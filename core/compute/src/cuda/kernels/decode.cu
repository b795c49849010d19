// Products of a single row: decoding. What is read from memory is the weights, and little else.
//
// A block works on 16 outputs at a time, a *tile*, and its warps take the chunks of all its tiles in turns. Weights are copied to
// shared memory two chunks ahead, by each warp for itself; as they do not depend on the kernels before this one, the first are on
// their way before those have ended. The chunks' sums stay in shared memory, where each output is added up in the order of the
// chunks (see `chunk.cuh`). A multiprocessor has one block, which is half as large as could be: small kernels fit beside it.
//
// The row's form (see `activations.cuh`) lies in shared memory. Where it is not there yet, every block makes it for itself, an RMS
// norm before it included, which is sooner done than by another launch. A gate and its up are one product with twice as many tiles,
// whose results meet in registers.

#include "copy.cuh"
#include "gates.cuh"
#include "jobs.cuh"
#include "rms.cuh"

// The host has the same number.
constexpr int DECODE_WARPS = 16;

struct Decode {
    Products all;
    // The row, where its form is not there; else null.
    const float* row;
    // The weight of the norm that comes before it, or null, and where the normalized row goes.
    const float* norm;
    float* normed;
    float eps;
    // The activation of gates, of which the first job is, and the second their ups; or -1.
    int gate;
    float alpha;
    float limit;
    // Tiles whose sums shared memory holds; even for gates.
    int at_once;
    // Where sums begin in shared memory, and weights.
    int sums_at;
    int weights_at;
};

// Quarters of a chunk. Types of 256 columns have whole chunks only.
template <class F>
__device__ __forceinline__ int quarters_here(const Forms& x, int chunk) {
    return F::by32 ? quarters_of(x, chunk) : 4;
}

// A warp's weights, which are copied ahead of it. (The copy engine takes longer for pieces as small as these.) A piece is a chunk of
// a tile.
template <class F>
struct Stream {
    static constexpr int BYTES = F::bytes(4), STAGES = 2;
    // The block's first tile, its step, and the number of its tiles.
    int block, step, own;
    int chunks, last_quarters;
    // 1 where every second tile is an up's.
    int gated;
    const u8* weight[2];
    u32 tile_row_bytes;
    u32 space;
    // Where the next copy goes, which is also what is taken next.
    int stage = 0;
    // What is copied next.
    int tile = 0, chunk;

    __device__ __forceinline__ void start(u32 to) {
        space = to, chunk = threadIdx.x / 32;
#pragma unroll 1
        for (int i = 0; i < STAGES; i++) fetch(), next();
    }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0;
    }
    // Starts the copy of the next piece, if there is one.
    __device__ __forceinline__ void fetch() {
        while (chunk >= chunks) chunk -= chunks, tile++;
        if (tile < own) {
            const u32 at = block + (tile >> gated) * step;
            const int quarters = F::by32 && chunk + 1 == chunks ? last_quarters : 4;
            const u8* from = (tile & gated ? weight[1] : weight[0]) + (u64)(at / TOGETHER) * (TOGETHER * tile_row_bytes) +
                             (u64)(u32)chunk * (TOGETHER * F::bytes(4)) + at % TOGETHER * tile_stride<F>(quarters);
            const u32 to = space + stage * BYTES;
            const int bytes = F::bytes(quarters), lane = threadIdx.x % 32;
#pragma unroll
            for (int i = 0; i < BYTES; i += 512)
                if (lane * 16 + i < bytes) copy_async<16>(to + lane * 16 + i, from + lane * 16 + i);
            chunk += DECODE_WARPS;
        }
        copies_end_group();
    }
    // The piece whose copy was started first; once `use(piece)` has read it, the next one comes to its place.
    template <class Use>
    __device__ __forceinline__ void take(const u8* shared, Use use) {
        copies_wait<STAGES - 1>();
        __syncwarp();
        use(shared + stage * BYTES);
        __syncwarp();
        fetch();
        next();
    }
};

// Where a warp finds a chunk of the single row.
struct NearRow {
    const Forms& x;
    int chunk;

    __device__ __forceinline__ uint4 codes256(int q) const { return load16(x.q256 + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16); }
    __device__ __forceinline__ uint2 sums16() const { return load8(x.sums16 + chunk * 16 + threadIdx.x % 4 * 4); }
    __device__ __forceinline__ float scale256() const { return x.d256[chunk]; }
    __device__ __forceinline__ uint4 codes32(int q) const { return load16(x.q32 + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16); }
    __device__ __forceinline__ float2 scales32(int q) const { return *(const float2*)(x.d32 + chunk * 8 + q * 2); }
    __device__ __forceinline__ float2 sums32(int q) const { return *(const float2*)(x.s32 + chunk * 8 + q * 2); }
};

// The part of `count` bytes of a form that this thread copies.
template <class T>
__device__ __forceinline__ void copy_form(void* to, const void* from, int count) {
#pragma unroll 1
    for (int i = threadIdx.x; i < count / (int)sizeof(T); i += 32 * DECODE_WARPS) ((T*)to)[i] = ((const T*)from)[i];
}

// The single row's form in shared memory. `weight` is this thread's part of the norm's weight. The host has the same sizes.
template <class F>
__device__ __forceinline__ Forms near_form(const Decode& d, u8* space, const float (&weight)[8], float* total) {
    const Forms& from = d.all.x;
    const int padded = from.padded, columns = d.all.columns;
    Forms x = {};
    x.padded = padded, x.chunks = from.chunks;
    if constexpr (F::by32) {
        x.d32 = (float*)space, x.s32 = (float*)(space + padded / 8), x.q32 = space + padded / 4;
    } else {
        x.sums16 = (__half*)space, x.d256 = (float*)(space + padded / 8);
        x.q256 = space + (padded / 8 + 4 * x.chunks + 15) / 16 * 16;
    }
    if (d.row) {
        float v[8], factor = 1.f;
        load_row8(d.row, column_of(first_chunk()), columns, v);
        if (d.norm) factor = rms_factor(d.row, v, columns, d.eps, total);
#pragma unroll 1
        for (int chunk = first_chunk(); chunk < x.chunks; chunk += DECODE_WARPS) {
            if (chunk != first_chunk()) load_row8(d.row, column_of(chunk), columns, v);
            if (d.norm) {
                float w[8];
                if (chunk != first_chunk()) load_row8(d.norm, column_of(chunk), columns, w);
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] = v[i] * factor * (chunk != first_chunk() ? w[i] : weight[i]);
                if (blockIdx.x == 0) store_row8(d.normed, column_of(chunk), columns, v);
            }
            put_forms(x, 0, chunk, v);
        }
    } else if constexpr (F::by32) {
        copy_form<uint4>(x.q32, from.q32, padded);
        copy_form<float2>(x.d32, from.d32, padded / 8), copy_form<float2>(x.s32, from.s32, padded / 8);
    } else {
        copy_form<uint4>(x.q256, from.q256, padded);
        copy_form<uint2>(x.sums16, from.sums16, padded / 8), copy_form<float>(x.d256, from.d256, 4 * x.chunks);
    }
    __syncthreads();
    return x;
}

// d += a · b, 16 × 8 × 32 bytes, of which those of `a` have no sign. Exact.
__device__ __forceinline__ void mma_u8_k32(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The sums of `chunk_product` for outputs `g` and `g + 8` of a chunk whose weights are at `piece`. All eight rows of the tensor core's
// product are the same, and the first is used. The loop is not unrolled, so that its instructions stay close to the multiprocessor's
// schedulers, which took a third of the time to fetch them anew for every chunk.
template <class F>
__device__ __forceinline__ void row_product(const u8* piece, const NearRow& x, int quarters, float (&sum)[2]) {
    constexpr bool HALVED = F::scales == TWIN || F::scales == SUPER16;
    // Codes without a sign stay where they are in a byte: the upper ones are 16 times as large.
    constexpr bool IN_PLACE = F::codes == U4 && F::scales == SUPER32;
    constexpr int START = F::by32 ? BIAS : 0;
    const int lane = threadIdx.x % 32, g = lane / 4;
    const u8* const low = piece + lane * 16;
    const u8* const scales = piece + F::scales_at(quarters);
    const u8* const mins = piece + F::mins_at(quarters);
    int dots[2] = {0, 0}, upper[2] = {0, 0};
    sum[0] = sum[1] = 0.f;
#pragma unroll 1
    for (int q = 0; q < quarters; q++) {
        // Of this quarter only.
        Planes<F> planes;
#pragma unroll
        for (int i = 0; i < Planes<F>::LOW; i++) planes.low[i] = load16(low + (q * Planes<F>::LOW + i) * 512);
        if constexpr (two_bits(F::codes) > 0) {
            const uint2 two = load8(low + F::two_at(quarters) + q / 2 * 512 + q % 2 * 8);
            planes.two[0].x = two.x, planes.two[0].y = two.y;
        }
        if constexpr (one_bit(F::codes) > 0) planes.one.x = *(const u32*)(low + F::one_at(quarters) + q * 4);
        // Of two blocks of 32 columns, or four of 16, for each of the two outputs.
        uint2 scale[2];
        u32 min[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if constexpr (F::scales == TWIN) scale[r] = load8(scales + g * 64 + r * 32 + q * 8);
            else if constexpr (F::scales == SUPER32) scale[r].x = *(const u16*)(scales + g * 16 + r * 8 + q * 2);
            else scale[r].x = *(const u32*)(scales + g * 32 + r * 16 + q * 4);
            if constexpr (F::scales == BLOCK && F::min) min[r] = *(const u32*)(mins + g * 32 + r * 16 + q * 4);
        }
        const uint4 b = F::by32 ? x.codes32(q) : x.codes256(q);
        float2 dx = {0.f, 0.f}, sx = {0.f, 0.f};
        if constexpr (F::by32) dx = x.scales32(q);
        if constexpr (F::by32 && F::min) sx = x.sums32(q);
#pragma unroll
        for (int block = 0; block < 2; block++) {
            u32 a[4];
            if constexpr (IN_PLACE) {
                const u32 mask = block ? 0xf0f0f0f0 : 0x0f0f0f0f;
                const uint4& codes = planes.low[0];
                a[0] = codes.x & mask, a[1] = codes.y & mask, a[2] = codes.z & mask, a[3] = codes.w & mask;
            } else {
                planes.unpack(0, block, a);
            }
#pragma unroll
            for (int half = 0; half < (HALVED ? 2 : 1); half++) {
                int dot[4] = {START, START, START, START};
                if constexpr (HALVED) mma_s8_k16(dot, a[2 * half], a[2 * half + 1], Planes<F>::word(b, 2 * block + half));
                else if constexpr (IN_PLACE) mma_u8_k32(dot, a, block ? b.z : b.x, block ? b.w : b.y);
                else mma_s8_k32(dot, a, block ? b.z : b.x, block ? b.w : b.y);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const u32 word = F::scales == TWIN && block ? scale[r].y : scale[r].x;
                    if constexpr (F::by32) {
                        const u32 bits = word >> (16 * (F::scales == TWIN ? half : block));
                        const float w = F::powers ? __uint_as_float(bits << 16) : half_bits(bits);
                        const float d = block ? dx.y : dx.x;
                        sum[r] = __fmaf_rn(biased(dot[2 * r]), __fmul_rn(F::scales == TWIN ? w : w * F::unit, d), sum[r]);
                        if constexpr (F::min) sum[r] = __fmaf_rn(half_bits(min[r] >> (16 * block)), block ? sx.y : sx.x, sum[r]);
                    } else {
                        const int s = (int)(signed char)(word >> (8 * (HALVED ? 2 * block + half : block)));
                        (IN_PLACE && block ? upper : dots)[r] += s * dot[2 * r];
                    }
                }
            }
        }
    }
    if constexpr (!F::by32) {
        TileScales<F> all;
        float low_sums[4] = {0.f, 0.f, 0.f, 0.f};
        const u8* const floats = piece + F::floats_at(quarters);
        if constexpr (F::min) {
            if constexpr (F::scales == SUPER32) all.min.x = *(const u32*)(mins + lane * 4);
            else all.min = load8(mins + lane * 8);
            all.d = load8(floats + g * 8);
            u32 a[4];
            all.min_registers(a);
            const uint2 sums = x.sums16();
            mma_f16(low_sums, a, sums.x, sums.y);
        } else {
            all.d.x = *(const u32*)(floats + g * 4);
        }
        const float dx = x.scale256();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float p = __fmul_rn(__fmul_rn((float)(dots[r] + (upper[r] >> 4)), F::unit), all.super_scale(r));
            if constexpr (F::min) p = __fmaf_rn(-low_sums[2 * r], all.super_min(r), p);
            sum[r] = __fmul_rn(p, dx);
        }
    }
}

template <class F>
__device__ __forceinline__ void decode(const Decode& d, const Job& job, int block, float* total) {
    extern __shared__ u8 shared[];
    const Products& p = d.all;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, chunks = p.x.chunks;
    const int gated = d.gate >= 0;

    Stream<F> weights;
    weights.block = block, weights.step = job.step;
    weights.own = ((job.outputs + TILE - 1) / TILE - block + job.step - 1) / job.step << gated;
    weights.chunks = chunks, weights.last_quarters = quarters_of(p.x, chunks - 1), weights.gated = gated;
    weights.weight[0] = job.weight, weights.weight[1] = p.jobs[1].weight, weights.tile_row_bytes = job.tile_row_bytes;
    const int own = weights.own;
    u8* const space = shared + d.weights_at + warp * (Stream<F>::STAGES * Stream<F>::BYTES);
    weights.start(shared_address(space));
    float norm[8];
    if (d.norm) load_row8(d.norm, column_of(first_chunk()), p.columns, norm);
    wait_for_previous();
    let_next_start();
    const Forms x = near_form<F>(d, shared, norm, total);

    // Where this warp is among the chunks of its block's tiles.
    int unit = warp, chunk = warp;
    // Two buffers of sums, which take turns: one is added up while the other fills.
    int buffer = 0;
    for (int group = 0; group < own; group += d.at_once) {
        const int here = min(d.at_once, own - group), units = here * chunks;
        // The output that this thread adds up, and what belongs to it.
        const int slot = threadIdx.x / TILE, part = threadIdx.x % TILE;
        const Job& of = gated & slot ? p.jobs[1] : job;
        const int output = (block + ((group + slot) >> gated) * job.step) * TILE + part;
        const bool mine = slot < here && output < job.outputs;
        float* const out = of.out + output;
        const float bias = mine && of.bias ? of.bias[output] : 0.f, before = mine && of.accumulate ? *out : 0.f;
        float* const sums = (float*)(shared + d.sums_at) + buffer * (d.at_once * chunks * TILE);
        buffer ^= 1;
#pragma unroll 1
        for (; unit < units; unit += DECODE_WARPS, chunk += DECODE_WARPS) {
            while (chunk >= chunks) chunk -= chunks;
            const int quarters = quarters_here<F>(x, chunk);
            const NearRow row = {x, chunk};
            float sum[2];
            weights.take(space, [&](const u8* piece) { row_product<F>(piece, row, quarters, sum); });
            float* const to = sums + unit * TILE + lane / 4;
            if (lane % 4 == 0) to[0] = sum[0], to[8] = sum[1];
        }
        unit -= units;
        __syncthreads();
        float value = 0.f;
        if (mine) {
            const float* in = sums + slot * chunks * TILE + part;
#pragma unroll 8
            for (int i = 0; i < chunks; i++, in += TILE) value = __fadd_rn(value, *in);
            value = __fmul_rn(value, of.factor);
            if (of.bias) value = __fadd_rn(value, bias);
        }
        if (gated) {
            // An up is 16 lanes behind its gate.
            const float up = __shfl_down_sync(~0u, value, TILE);
            if (slot % 2 == 0) value = activate(d.gate, value, up, d.alpha, d.limit);
        }
        if (mine) *out = of.accumulate ? __fadd_rn(before, value) : value;
    }
}

// Half floats take the kernel for few rows, which is faster: a chunk of theirs is too large for this one's shared memory.
template <class F>
__device__ __forceinline__ void decode_codes(const Decode& d, const Job& job, int block, float* total) {
    if constexpr (F::codes != HALF) decode<F>(d, job, block, total);
}

extern "C" __global__ void __launch_bounds__(32 * DECODE_WARPS, 2) product_1(const __grid_constant__ Decode d) {
    __shared__ float total[32];
    const Job& job = job_of(d.all, blockIdx.x);
    switch (job.format) {
#define CASE(N, F) \
    case N: decode_codes<F>(d, job, blockIdx.x - job.first_block, total); break;
        FOR_EACH_FORMAT(CASE)
#undef CASE
    }
}
