// The product of one chunk with a single row: the same sums as `chunk_product`, with fewer instructions.
//
// Tensor cores multiply with eight rows. Instead of eight rows, the right operand's columns are here the eight blocks of 32 columns
// of one row, each alone: the product with block `n` of the weights takes a right operand in which all columns but `n` are zeros.
// Then lane `4 g + t` has the sums of blocks `2 t` and `2 t + 1` for the outputs `g` and `g + 8`, scales each once, and the four
// lanes add up in the order of the blocks.
#pragma once

#include "chunk.cuh"

// One lane's scales of a chunk: those of blocks `2 t` and `2 t + 1`.
template <class F>
struct OneScales {
    uint2 scale[2];
    u32 block_min[2];
    uint2 min;
    uint2 d;

    template <bool NEAR = false>
    __device__ __forceinline__ void load(const u8* tile, int lane, int quarters) {
        const int g = lane / 4, t = lane % 4;
        const u8* s = tile + F::scales_at(quarters);
        const u8* m = tile + F::mins_at(quarters);
        auto load8 = [](const u8* p) { return NEAR ? ::load8(p) : constant8(p); };
        auto load4 = [](const u8* p) { return NEAR ? *(const u32*)p : constant4(p); };
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if constexpr (F::scales == TWIN) scale[r] = load8(s + g * 64 + r * 32 + t * 8);
            // Two of 16 bits, or four bytes.
            else if constexpr (F::scales != SUPER32) scale[r].x = load4(s + g * 32 + r * 16 + t * 4);
            else scale[r].x = load4(s + g * 16 + r * 8 + t / 2 * 4) >> (16 * (t % 2));
            if constexpr (F::scales == BLOCK && F::min) block_min[r] = load4(m + g * 32 + r * 16 + t * 4);
        }
        if constexpr (F::scales == SUPER32 && F::min) min.x = load4(m + lane * 4);
        if constexpr (F::scales == SUPER16 && F::min) min = load8(m + lane * 8);
        if constexpr (!F::by32) {
            const u8* f = tile + F::floats_at(quarters);
            if constexpr (F::min) d = load8(f + g * 8);
            else d.x = load4(f + g * 4);
        }
    }
    // What `TileScales` makes of the same bits.
    __device__ __forceinline__ void others(TileScales<F>& all) const { all.min = min, all.d = d; }
};

// Where a warp finds a chunk of the row.
struct OneRow {
    const Forms& x;
    size_t at;
    int row, chunk;

    __device__ __forceinline__ OneRow(const Forms& x, int row, int chunk)
        : x(x), at((size_t)row * x.padded + chunk * CHUNK), row(row), chunk(chunk) {}
};

// `sum[m][r]` is of output `g + 8 r`, on all lanes.
template <class F, int MT>
__device__ __forceinline__ void one_row_product(const Planes<F> (&planes)[MT], const OneScales<F> (&scales)[MT], const OneRow& x,
                                                int quarters, float (&sum)[MT][2]) {
    static_assert(F::codes != HALF, "half floats are added up by tensor cores");
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    constexpr bool HALVED = F::scales == TWIN || F::scales == SUPER16;
    constexpr int START = F::by32 ? BIAS : 0;
    // This lane's block of the row.
    uint2 mine = {0, 0};
    if (g / 2 < quarters) mine = load8((F::by32 ? x.x.q32 : x.x.q256) + x.at + g / 2 * 64 + t * 16 + g % 2 * 8);
    float2 dx = {0.f, 0.f}, sx = {0.f, 0.f};
    if (F::by32 && t < quarters) {
        dx = *reinterpret_cast<const float2*>(x.x.d32 + x.at / 32 + 2 * t);
        if (F::min) sx = *reinterpret_cast<const float2*>(x.x.s32 + x.at / 32 + 2 * t);
    }
    // Of 32 columns, or the first and the second 16 of them.
    int dots[MT][HALVED ? 2 : 1][4];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < (HALVED ? 2 : 1); h++)
#pragma unroll
            for (int i = 0; i < 4; i++) dots[m][h][i] = START;
#pragma unroll
    for (int q = 0; q < 4; q++)
        if (q < quarters) {
#pragma unroll
            for (int block = 0; block < 2; block++) {
                const bool here = g == 2 * q + block;
                const u32 b0 = here ? mine.x : 0, b1 = here ? mine.y : 0;
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    u32 a[4];
                    planes[m].unpack(q, block, a);
                    if constexpr (HALVED) {
                        mma_s8_k16(dots[m][0], a[0], a[1], b0);
                        mma_s8_k16(dots[m][1], a[2], a[3], b1);
                    } else {
                        mma_s8_k32(dots[m][0], a, b0, b1);
                    }
                }
            }
        }
    if constexpr (F::by32) {
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                constexpr int COUNT = HALVED ? 4 : 2;
                float dot[COUNT], factor[COUNT];
#pragma unroll
                for (int i = 0; i < COUNT; i++) {
                    const int block = HALVED ? i / 2 : i;
                    const u32 word = HALVED && i >= 2 ? scales[m].scale[r].y : scales[m].scale[r].x;
                    const float w = F::powers ? __uint_as_float(word >> (16 * (i % 2)) << 16) : half_bits(word >> (16 * (i % 2)));
                    dot[i] = biased(dots[m][HALVED ? i % 2 : 0][2 * r + block]);
                    factor[i] = __fmul_rn(w * F::unit, block ? dx.y : dx.x);
                }
                float total = 0.f;
#pragma unroll
                for (int from = 0; from < 4; from++) {
#pragma unroll
                    for (int i = 0; i < COUNT; i++) {
                        total = __fmaf_rn(dot[i], factor[i], total);
                        if constexpr (F::min)
                            total = __fmaf_rn(half_bits(scales[m].block_min[r] >> (16 * i)), i ? sx.y : sx.x, total);
                    }
                    total = __shfl_sync(~0u, total, from, 4);
                }
                sum[m][r] = total;
            }
    } else {
        const float scale = x.x.d256[(size_t)x.row * x.x.chunks + x.chunk];
        uint2 sums = {0, 0};
        if constexpr (F::min) sums = load8(x.x.sums16 + x.at / 16 + t * 4);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            TileScales<F> tile;
            scales[m].others(tile);
            float low[4] = {0.f, 0.f, 0.f, 0.f};
            if constexpr (F::min) {
                u32 mins[4];
                tile.min_registers(mins);
                mma_f16(low, mins, sums.x, sums.y);
            }
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int total = 0;
#pragma unroll
                for (int i = 0; i < (HALVED ? 4 : 2); i++) {
                    const int s = (int)(signed char)(scales[m].scale[r].x >> (8 * i));
                    total += s * (HALVED ? dots[m][i % 2][2 * r + i / 2] : dots[m][0][2 * r + i]);
                }
                total += __shfl_xor_sync(~0u, total, 1);
                total += __shfl_xor_sync(~0u, total, 2);
                float p = __fmul_rn(__fmul_rn((float)total, F::unit), tile.super_scale(r));
                if constexpr (F::min) p = __fmaf_rn(-low[2 * r], tile.super_min(r), p);
                sum[m][r] = __fmul_rn(p, scale);
            }
        }
    }
}
