// How the GPU keeps weights: tiles of 16 outputs by 256 columns, in the order in which tensor cores read them.
//
// A matrix is made of tiles, each a run of bytes: planes of codes, then scales. Four tiles of neighbouring outputs lie together,
// chunk by chunk: `[outputs / 64][chunks][4]`, so that a block of threads copies what it needs of a chunk at once. Lane `l = 4 g + t` of a
// warp has the outputs `g` and `g + 8` of a tile, and of every 32 columns the bytes `4 t ..` and `16 + 4 t ..`: four
// 32-bit words, the *registers* of the left operand of an 8-bit product: register `i` is output `g + 8 (i % 2)`, columns
// `16 (i / 2) + 4 t ..`. Two such blocks of 32 columns are a *quarter*. Per lane and quarter there are
//
// | plane | bytes | what byte `j` of word `i` holds |
// |---|---|---|
// | low 4 bits | 16 | low bits: block 0, high bits: block 1; for a table of values the nibbles are in order, block 0 first |
// | 8 bits | 2 × 16 | the code, block by block |
// | half floats | 4 × 16 | 16 columns at a time, the left operand of a half-float product |
// | 1 bit | 4 | bit `4 b + i`: register `i` of block `b` |
// | 2 bits | 8 | word `b`: bits `2 i ..` for register `i` of block `b` |
//
// Planes of 4 bits and more are quarter by quarter, 512 bytes or more each, so that a matrix whose last chunk is not whole
// leaves quarters out. (Of half floats, the same quarter of four tiles lies together.) The others hold whole chunks: 16 bytes a lane for 1 bit, 2 × 16 for 2 bits.
//
// Codes with a center are stored so that putting their bits at the top of a byte gives (code - center) · 2^shift as
// a signed byte; the factor is taken out of the scale of the activations.
#pragma once

#include "common.cuh"

enum Codes { U2, U3, U4, U5, U6, I8, TABLE, HALF };
enum Scales { BLOCK, TWIN, SUPER16, SUPER32, NO_SCALES };
// What the indices of a table mean.
enum Values { IQ4, E2M1, IQ2, IQ3_LOW, IQ3_ODD, IQ1 };

__host__ __device__ constexpr int low_plane(int codes) {  // bytes a quarter
    return codes == U2 || codes == U3 ? 0 : codes == I8 ? 1024 : codes == HALF ? 2048 : 512;
}
__host__ __device__ constexpr int two_bits(int codes) { return codes == U2 || codes == U3 || codes == U6 ? 1024 : 0; }
__host__ __device__ constexpr int one_bit(int codes) { return codes == U3 || codes == U5 ? 512 : 0; }
__host__ __device__ constexpr int scale_bytes(int scales) {
    return scales == TWIN ? 512 : scales == BLOCK || scales == SUPER16 ? 256 : scales == SUPER32 ? 128 : 0;
}
__host__ __device__ constexpr int float_bytes(int scales, bool min) {
    return scales == SUPER16 || scales == SUPER32 ? min ? 64 : 32 : 0;
}

// Where things are in a tile of `quarters` quarters.
template <int CODES, int SCALES, bool MIN, bool CENTER, int VALUES = IQ4>
struct Format {
    static constexpr int codes = CODES, scales = SCALES, values = VALUES;
    static constexpr bool min = MIN, center = CENTER;
    // Activations have a scale for 32 columns.
    static constexpr bool by32 = SCALES == BLOCK || SCALES == TWIN;
    // The scales are powers of two from 2^-128 to 2^127, kept as bfloat16, where all of them are exact.
    static constexpr bool powers = SCALES == BLOCK && VALUES == E2M1;
    // What a signed byte is too large by.
    static constexpr float unit = CODES == TABLE ? (VALUES == IQ2 || VALUES == IQ1 ? 1.f / 8
                                                    : VALUES == IQ3_LOW            ? 1.f / 4
                                                                                   : 1.f)
                                  : !CENTER     ? 1.f
                                  : CODES == U3 ? 1.f / 32
                                  : CODES == U4 ? 1.f / 16
                                  : CODES == U5 ? 1.f / 8
                                                : 1.f / 4;
    __host__ __device__ static constexpr int two_at(int quarters) { return quarters * low_plane(CODES); }
    __host__ __device__ static constexpr int one_at(int quarters) { return two_at(quarters) + two_bits(CODES); }
    __host__ __device__ static constexpr int scales_at(int quarters) { return one_at(quarters) + one_bit(CODES); }
    __host__ __device__ static constexpr int mins_at(int quarters) {
        return scales_at(quarters) + scale_bytes(SCALES);
    }
    __host__ __device__ static constexpr int floats_at(int quarters) {
        return mins_at(quarters) + (MIN ? scale_bytes(SCALES) : 0);
    }
    __host__ __device__ static constexpr int bytes(int quarters) {
        return floats_at(quarters) + float_bytes(SCALES, MIN);
    }
};

typedef Format<U4, BLOCK, false, true> Q4_0;
typedef Format<U4, BLOCK, true, false> Q4_1;
typedef Format<U5, BLOCK, false, true> Q5_0;
typedef Format<U5, BLOCK, true, false> Q5_1;
typedef Format<I8, BLOCK, false, false> Q8_0;
typedef Format<TABLE, BLOCK, false, false> IQ4_NL;
typedef Format<U2, SUPER16, true, false> Q2_K;
typedef Format<U3, SUPER16, false, true> Q3_K;
typedef Format<U4, SUPER32, true, false> Q4_K;
typedef Format<U5, SUPER32, true, false> Q5_K;
typedef Format<U6, SUPER16, false, true> Q6_K;
typedef Format<TABLE, SUPER32, false, false> IQ4_XS;
typedef Format<HALF, NO_SCALES, false, false> F16;
// 4-bit floats, as twice their values.
typedef Format<TABLE, BLOCK, false, false, E2M1> MXFP4;
typedef Format<TABLE, TWIN, false, false, E2M1> NVFP4;
// Points of codebooks are taken apart: the index of a magnitude with the sign above it, by an odd whole scale. IQ2_XXS; IQ2_XS and
// IQ2_S; IQ3_XXS; IQ3_S; IQ1_S; IQ1_M.
typedef Format<TABLE, SUPER32, false, false, IQ2> IQ2_32;
typedef Format<TABLE, SUPER16, false, false, IQ2> IQ2_16;
typedef Format<TABLE, SUPER32, false, false, IQ3_LOW> IQ3_XXS;
typedef Format<TABLE, SUPER32, false, false, IQ3_ODD> IQ3_S;
typedef Format<TABLE, SUPER32, false, false, IQ1> IQ1_32;
typedef Format<TABLE, SUPER16, false, false, IQ1> IQ1_16;

// The order of the kernels' `format` argument; the host has the same list.
#define FOR_EACH_FORMAT(X) \
    X(0, Q4_0) X(1, Q4_1) X(2, Q5_0) X(3, Q5_1) X(4, Q8_0) X(5, IQ4_NL) X(6, Q2_K) X(7, Q3_K) X(8, Q4_K) X(9, Q5_K) \
    X(10, Q6_K) X(11, IQ4_XS) X(12, F16) X(13, MXFP4) X(14, NVFP4) X(15, IQ2_32) X(16, IQ2_16) X(17, IQ3_XXS) \
    X(18, IQ3_S) X(19, IQ1_32) X(20, IQ1_16)

// Tiles that lie together.
constexpr int TOGETHER = 4;

// Bytes from a quarter of a tile to its next one, and from a tile to its next neighbour.
template <class F>
__host__ __device__ constexpr int quarter_stride() {
    return F::codes == HALF ? TOGETHER * low_plane(HALF) : low_plane(F::codes);
}
template <class F>
__host__ __device__ constexpr int tile_stride(int quarters) {
    return F::codes == HALF ? low_plane(HALF) : F::bytes(quarters);
}

// Where a chunk of a tile begins, in a matrix whose tiles have `tile_row_bytes` for all columns. The chunk has `quarters`.
template <class F>
__device__ __forceinline__ u64 tile_at(int tile, int chunk, int quarters, u64 tile_row_bytes) {
    return tile / TOGETHER * (TOGETHER * tile_row_bytes) + (u64)chunk * (TOGETHER * F::bytes(4)) +
           tile % TOGETHER * tile_stride<F>(quarters);
}

// Four signed values as the bytes of a word.
__host__ __device__ constexpr u32 word_of(int a, int b, int c, int d) {
    return (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
}

// Word `i` of the 16 values of a table. The values of codebooks are 8 magnitudes, then those below zero; of IQ1 they are eight times
// -1, 0 and 1, plus 1, then minus 1.
__host__ __device__ constexpr u32 values_word(int values, int i) {
    switch (values * 4 + i) {
        case IQ4 * 4: return word_of(-127, -104, -83, -65);
        case IQ4 * 4 + 1: return word_of(-49, -35, -22, -10);
        case IQ4 * 4 + 2: return word_of(1, 13, 25, 38);
        case IQ4 * 4 + 3: return word_of(53, 69, 89, 113);
        case E2M1 * 4: return word_of(0, 1, 2, 3);
        case E2M1 * 4 + 1: return word_of(4, 6, 8, 12);
        case E2M1 * 4 + 2: return word_of(0, -1, -2, -3);
        case E2M1 * 4 + 3: return word_of(-4, -6, -8, -12);
        case IQ2 * 4: return word_of(8, 25, 43, 0);
        case IQ2 * 4 + 2: return word_of(-8, -25, -43, 0);
        case IQ3_LOW * 4: return word_of(4, 12, 20, 28);
        case IQ3_LOW * 4 + 1: return word_of(36, 44, 52, 62);
        case IQ3_LOW * 4 + 2: return word_of(-4, -12, -20, -28);
        case IQ3_LOW * 4 + 3: return word_of(-36, -44, -52, -62);
        case IQ3_ODD * 4: return word_of(1, 3, 5, 7);
        case IQ3_ODD * 4 + 1: return word_of(9, 11, 13, 15);
        case IQ3_ODD * 4 + 2: return word_of(-1, -3, -5, -7);
        case IQ3_ODD * 4 + 3: return word_of(-9, -11, -13, -15);
        case IQ1 * 4: return word_of(-7, 1, 9, 0);
        case IQ1 * 4 + 2: return word_of(-9, -1, 7, 0);
        default: return 0;
    }
}

// The value of one index.
template <int VALUES>
__device__ __forceinline__ int value_of(u32 index) {
    u32 word = index < 4 ? values_word(VALUES, 0) : index < 8 ? values_word(VALUES, 1) : index < 12 ? values_word(VALUES, 2) : values_word(VALUES, 3);
    return (signed char)(word >> (8 * (index % 4)));
}

// The values of four 4-bit indices in the low half of `nibbles`.
template <int VALUES>
__device__ __forceinline__ u32 look_up4(u32 nibbles) {
    constexpr u32 v0 = values_word(VALUES, 0), v1 = values_word(VALUES, 1), v2 = values_word(VALUES, 2), v3 = values_word(VALUES, 3);
    u32 low = __byte_perm(v0, v1, nibbles & 0x7777), high = __byte_perm(v2, v3, nibbles & 0x7777);
    // Byte j from `high` (4 + j) where bit 3 of the nibble is set.
    return __byte_perm(low, high, 0x3210 | ((nibbles & 0x8888) >> 1));
}

// One lane's planes of a whole chunk, or of its first quarters.
template <class F>
struct Planes {
    static constexpr int LOW = low_plane(F::codes) / 512;  // 16-byte pieces a quarter
    uint4 low[LOW ? 4 * LOW : 1];
    uint4 two[2];
    uint4 one;

    // From memory, or where NEAR from shared memory.
    template <bool NEAR = false>
    __device__ __forceinline__ void load(const u8* tile, int lane, int quarters) {
        const u8* p = tile + lane * 16;
        auto load = [](const u8* p) { return NEAR ? load16(p) : stream16(p); };
        if constexpr (LOW > 0) {
#pragma unroll
            for (int i = 0; i < 4 * LOW; i++)
                if (i < quarters * LOW) low[i] = load(p + i / LOW * quarter_stride<F>() + i % LOW * 512);
        }
        if constexpr (two_bits(F::codes) > 0) {
            two[0] = load(p + F::two_at(quarters));
            two[1] = load(p + F::two_at(quarters) + 512);
        }
        if constexpr (one_bit(F::codes) > 0) one = load(p + F::one_at(quarters));
    }

    static __device__ __forceinline__ u32 word(const uint4& v, int i) {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    }

    // Moves bits `from ..` of every byte to bits `to ..` and keeps those of `mask`.
    static __device__ __forceinline__ u32 bits(u32 w, int from, int to, u32 mask) {
        return (from > to ? w >> (from - to) : w << (to - from)) & mask;
    }

    // The four registers of block `b` of quarter `q`; both are known when this is compiled.
    __device__ __forceinline__ void unpack(int q, int b, u32 (&a)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (F::codes == I8) {
                a[i] = word(low[2 * q + b], i);
            } else if constexpr (F::codes == TABLE) {
                u32 w = word(low[q], i);
                a[i] = look_up4<F::values>(b ? w >> 16 : w);
            } else if constexpr (F::codes == U4) {
                u32 w = word(low[q], i);
                a[i] = F::center ? bits(w, 4 * b, 4, 0xf0f0f0f0) : bits(w, 4 * b, 0, 0x0f0f0f0f);
            } else if constexpr (F::codes == U5) {
                u32 w = word(low[q], i), h = word(one, q);
                a[i] = F::center ? bits(w, 4 * b, 3, 0x78787878) | bits(h, 4 * b + i, 7, 0x80808080)
                                 : bits(w, 4 * b, 0, 0x0f0f0f0f) | bits(h, 4 * b + i, 4, 0x10101010);
            } else if constexpr (F::codes == U6) {
                u32 w = word(low[q], i), h = word(two[q / 2], q % 2 * 2 + b);
                a[i] = bits(w, 4 * b, 2, 0x3c3c3c3c) | bits(h, 2 * i, 6, 0xc0c0c0c0);
            } else if constexpr (F::codes == U2) {
                a[i] = bits(word(two[q / 2], q % 2 * 2 + b), 2 * i, 0, 0x03030303);
            } else if constexpr (F::codes == U3) {
                u32 w = word(two[q / 2], q % 2 * 2 + b), h = word(one, q);
                a[i] = bits(w, 2 * i, 5, 0x60606060) | bits(h, 4 * b + i, 7, 0x80808080);
            }
        }
    }
};

// One lane's scales of a chunk.
template <class F>
struct TileScales {
    uint4 scale[F::scales == SUPER32 ? 1 : F::scales == TWIN ? 4 : 2];
    uint4 block_min[2];
    uint2 min;
    uint2 d;

    template <bool NEAR = false>
    __device__ __forceinline__ void load(const u8* tile, int lane, int quarters) {
        int g = lane / 4;
        auto load16 = [](const u8* p) { return NEAR ? ::load16(p) : constant16(p); };
        auto load8 = [](const u8* p) { return NEAR ? ::load8(p) : constant8(p); };
        auto load4 = [](const u8* p) { return NEAR ? *(const u32*)p : constant4(p); };
        const u8* s = tile + F::scales_at(quarters);
        const u8* m = tile + F::mins_at(quarters);
        if constexpr (F::scales == SUPER32) {
            scale[0] = load16(s + g * 16);
            if constexpr (F::min) min.x = load4(m + lane * 4);
        } else if constexpr (F::scales == TWIN) {
#pragma unroll
            for (int i = 0; i < 4; i++) scale[i] = load16(s + g * 64 + i * 16);
        } else if constexpr (F::scales != NO_SCALES) {
            scale[0] = load16(s + g * 32);
            scale[1] = load16(s + g * 32 + 16);
            if constexpr (F::scales == BLOCK && F::min) {
                block_min[0] = load16(m + g * 32);
                block_min[1] = load16(m + g * 32 + 16);
            }
            if constexpr (F::scales == SUPER16 && F::min) min = load8(m + lane * 8);
        }
        if constexpr (F::scales == SUPER16 || F::scales == SUPER32) {
            const u8* f = tile + F::floats_at(quarters);
            if constexpr (F::min) d = load8(f + g * 8);
            else d.x = load4(f + g * 4);
        }
    }

    // The integer scale of 16 or 32 columns `s` of output `g + 8 r`.
    __device__ __forceinline__ int integer(int s, int r) const {
        u32 w;
        if constexpr (F::scales == SUPER32) w = Planes<F>::word(scale[0], 2 * r + s / 4);
        else w = Planes<F>::word(scale[r], s / 4);
        return (int)(signed char)(w >> (8 * (s % 4)));
    }

    // The float scale, or minimum, of block `s` of output `g + 8 r`.
    static __device__ __forceinline__ float half_of(const uint4& v, int s) {
        return half_bits(Planes<F>::word(v, s / 2) >> (16 * (s % 2)));
    }
    __device__ __forceinline__ float block_scale(int s, int r) const {
        if constexpr (F::powers) return __uint_as_float(Planes<F>::word(scale[r], s / 2) >> (16 * (s % 2)) << 16);
        else return half_of(scale[r], s);
    }
    // Of 16 columns.
    __device__ __forceinline__ float twin_scale(int s, int r) const { return half_of(scale[2 * r + s / 8], s % 8); }
    __device__ __forceinline__ float block_minimum(int s, int r) const { return half_of(block_min[r], s); }

    // d and dmin of output `g + 8 r`.
    __device__ __forceinline__ float super_scale(int r) const {
        if constexpr (F::min) return half_bits(r ? d.y : d.x);
        else return half_bits(r ? d.x >> 16 : d.x);
    }
    __device__ __forceinline__ float super_min(int r) const { return half_bits((r ? d.y : d.x) >> 16); }

    // The minimums as the left operand of a half-float product with the sums of 16 codes.
    __device__ __forceinline__ void min_registers(u32 (&a)[4]) const {
        const u32 base = 0x64646464;  // 0x6400 + byte is 1024 + byte
        if constexpr (F::scales == SUPER32) {
            a[0] = __byte_perm(min.x, base, 0x4040), a[1] = __byte_perm(min.x, base, 0x4141);
            a[2] = __byte_perm(min.x, base, 0x4242), a[3] = __byte_perm(min.x, base, 0x4343);
        } else {
            a[0] = __byte_perm(min.x, base, 0x4140), a[1] = __byte_perm(min.x, base, 0x4342);
            a[2] = __byte_perm(min.y, base, 0x4140), a[3] = __byte_perm(min.y, base, 0x4342);
        }
        const __half2 offset = __floats2half2_rn(1024.f, 1024.f);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __half2 h = __hsub2(*reinterpret_cast<__half2*>(&a[i]), offset);
            a[i] = *reinterpret_cast<u32*>(&h);
        }
    }
};
