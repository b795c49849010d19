// From the blocks of a GGUF file to tiles, and from tiles to rows of embeddings.
//
// The layouts of blocks are `block_*` in ggml's `ggml-common.h`.

#include "format.cuh"

// ggml's ids.
enum Type { T_F32 = 0, T_F16 = 1, T_Q4_0 = 2, T_Q4_1 = 3, T_Q5_0 = 6, T_Q5_1 = 7, T_Q8_0 = 8, T_Q2_K = 10, T_Q3_K = 11,
            T_Q4_K = 12, T_Q5_K = 13, T_Q6_K = 14, T_Q8_K = 15, T_IQ2_XXS = 16, T_IQ2_XS = 17, T_IQ3_XXS = 18, T_IQ1_S = 19,
            T_IQ4_NL = 20, T_IQ3_S = 21, T_IQ2_S = 22, T_IQ4_XS = 23, T_IQ1_M = 29, T_BF16 = 30, T_TQ1_0 = 34, T_TQ2_0 = 35,
            T_MXFP4 = 39, T_NVFP4 = 40, T_Q1_0 = 41, T_Q2_0 = 42 };

__device__ int block_bytes(int type) {
    switch (type) {
        case T_Q4_0: case T_IQ4_NL: return 18;
        case T_Q4_1: return 20;
        case T_Q5_0: return 22;
        case T_Q5_1: return 24;
        case T_Q8_0: return 34;
        case T_Q2_K: return 84;
        case T_Q3_K: return 110;
        case T_Q4_K: return 144;
        case T_Q5_K: return 176;
        case T_Q6_K: return 210;
        case T_IQ4_XS: return 136;
        case T_IQ2_XXS: return 66;
        case T_IQ2_XS: return 74;
        case T_IQ2_S: return 82;
        case T_IQ3_XXS: return 98;
        case T_IQ3_S: return 110;
        case T_IQ1_S: return 50;
        case T_IQ1_M: return 56;
        case T_TQ1_0: return 54;
        case T_TQ2_0: return 66;
        case T_MXFP4: return 17;
        case T_NVFP4: return 36;
        case T_Q1_0: case T_Q2_0: return 18;
        default: return 2;
    }
}

// Numbers of a block, where the format does not say it: that of the float scale.
__device__ int block_length(int type, int otherwise) {
    return type == T_Q1_0 ? 128 : type == T_NVFP4 || type == T_Q2_0 ? 64 : type == T_TQ1_0 || type == T_TQ2_0 ? 256 : otherwise;
}

__device__ u32 half_at(const u8* b, int at) { return b[at] | (u32)b[at + 1] << 8; }
__device__ u32 word_at(const u8* b, int at) { return half_at(b, at) | half_at(b, at + 2) << 16; }
__device__ u32 nibble_at(const u8* b, int i) { return b[i / 2] >> (i % 2 * 4) & 15; }

// Where the codebooks begin among the entries that `grids.rs` describes.
enum Grid { G_IQ2_XXS = 0, G_IQ2_XS = 256, G_IQ2_S = 768, G_IQ3_XXS = 1792, G_IQ3_S = 2048, G_IQ1 = 2560 };

// Sign `k` of eight, of which seven are kept: the eighth makes the number of minuses even.
__device__ u32 even_sign(u32 bits, int k) { return k < 7 ? bits >> k & 1 : __popc(bits & 127) & 1; }

// The index of number `i` of a block in its type's table: a magnitude, and above it the sign, or the direction of the move.
__device__ u32 point(int type, const u8* b, int i, const u16* grid) {
    int g = i / 8, k = i % 8, s = i / 32, q = i / 4;
    switch (type) {
        case T_IQ2_XXS: {
            u32 signs = word_at(b, 6 + 8 * s) >> (g % 4 * 7);
            return (grid[G_IQ2_XXS + b[2 + 8 * s + g % 4]] >> (2 * k) & 3) | even_sign(signs, k) << 3;
        }
        case T_IQ2_XS: {
            u32 both = half_at(b, 2 + 2 * g);
            return (grid[G_IQ2_XS + (both & 511)] >> (2 * k) & 3) | even_sign(both >> 9, k) << 3;
        }
        case T_IQ2_S: {
            u32 index = b[2 + g] | (b[66 + s] >> (g % 4 * 2) & 3) << 8;
            return (grid[G_IQ2_S + index] >> (2 * k) & 3) | (b[34 + g] >> k & 1) << 3;
        }
        case T_IQ3_XXS: {
            u32 signs = word_at(b, 66 + 4 * s) >> (g % 4 * 7);
            return (grid[G_IQ3_XXS + b[2 + q]] >> (3 * (i % 4)) & 7) | even_sign(signs, k) << 3;
        }
        case T_IQ3_S: {
            u32 index = b[2 + q] | (b[66 + q / 8] >> (q % 8) & 1) << 8;
            return (grid[G_IQ3_S + index] >> (3 * (i % 4)) & 7) | (b[74 + g] >> k & 1) << 3;
        }
        case T_IQ1_S: {
            u32 high = half_at(b, 34 + 2 * s), index = b[2 + g] | (high >> (g % 4 * 3) & 7) << 8;
            return (grid[G_IQ1 + index] >> (2 * k) & 3) | (high >> 15) << 3;
        }
        default: {
            u32 high = nibble_at(b + 32, g), index = b[g] | (high & 7) << 8;
            return (grid[G_IQ1 + index] >> (2 * k) & 3) | (high >> 3) << 3;
        }
    }
}

// Number `i` of TQ1_0: a digit of base 3 of a byte; see `dequantize.rs`.
__device__ u32 digit(const u8* b, int i) {
    int byte = i < 160 ? i % 32 : i < 240 ? 32 + i % 16 : 48 + i % 4;
    int which = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    u32 power = which == 0 ? 1 : which == 1 ? 3 : which == 2 ? 9 : which == 3 ? 27 : 81;
    return ((b[byte] * power & 255) * 3) >> 8;
}

// The code of number `i` of a block, as it is put into planes: see `format.cuh` about centers.
__device__ u32 code(int type, const u8* b, int i, const u16* grid) {
    int j = i % 16, high = i / 16;
    switch (type) {
        case T_IQ2_XXS: case T_IQ2_XS: case T_IQ2_S: case T_IQ3_XXS: case T_IQ3_S: case T_IQ1_S: case T_IQ1_M:
            return point(type, b, i, grid);
        case T_TQ1_0: return digit(b, i);
        case T_TQ2_0: return b[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        case T_MXFP4: return b[1 + j] >> (4 * high) & 15;
        case T_NVFP4: return b[4 + 8 * high + j % 8] >> (j / 8 * 4) & 15;
        // 1 and -1, as of Q4_0.
        case T_Q1_0: return b[2 + i / 8] >> (i % 8) & 1 ? 1 : 15;
        // -1 to 2, as of Q4_0.
        case T_Q2_0: return ((b[2 + i / 4] >> (i % 4 * 2) & 3) - 1) & 15;
        case T_Q4_0: return (b[2 + j] >> (4 * high) & 15) ^ 8;
        case T_IQ4_NL: return b[2 + j] >> (4 * high) & 15;
        case T_Q4_1: return b[4 + j] >> (4 * high) & 15;
        case T_Q5_0: return ((b[6 + j] >> (4 * high) & 15) | (b[2 + i / 8] >> (i % 8) & 1) << 4) ^ 16;
        case T_Q5_1: return (b[8 + j] >> (4 * high) & 15) | (b[4 + i / 8] >> (i % 8) & 1) << 4;
        case T_Q8_0: return b[2 + i];
        case T_Q2_K: return b[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        case T_Q3_K: {
            u32 low = b[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            return (low | (b[i % 32] >> (i / 32) & 1) << 2) ^ 4;
        }
        case T_Q4_K: return b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        case T_Q5_K:
            return (b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15) | (b[16 + i % 32] >> (i / 32) & 1) << 4;
        case T_Q6_K: {
            int half = i / 128, k = i % 128;
            u32 low = b[half * 64 + k % 64] >> (k / 64 * 4) & 15;
            return (low | (b[128 + half * 32 + k % 32] >> (k / 32 * 2) & 3) << 4) ^ 32;
        }
        case T_IQ4_XS: return b[8 + i / 32 * 16 + j] >> (i / 16 % 2 * 4) & 15;
        default: return 0;
    }
}

// Scale `s` of a K-quant block, and its minimum in the second byte.
__device__ u32 integer_scale(int type, const u8* b, int s) {
    switch (type) {
        case T_Q2_K: return (b[s] & 15) | (u32)(b[s] >> 4) << 8;
        case T_Q3_K: {
            const u8* p = b + 96;
            u32 low = p[s % 8] >> (s / 8 * 4) & 15, high = p[8 + s % 4] >> (s / 4 * 2) & 3;
            return ((low | high << 4) - 32) & 255;
        }
        case T_Q4_K: case T_Q5_K: {
            const u8* p = b + 4;
            if (s < 4) return (p[s] & 63) | (u32)(p[s + 4] & 63) << 8;
            u32 scale = (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
            u32 min = (p[s + 4] >> 4) | (p[s] >> 6) << 4;
            return scale | min << 8;
        }
        case T_Q6_K: return b[192 + s];
        case T_IQ2_XXS: return 2 * (b[9 + 8 * s] >> 4) + 1;
        case T_IQ3_XXS: return 2 * (b[69 + 4 * s] >> 4) + 1;
        case T_IQ2_XS: return 2 * nibble_at(b + 66, s) + 1;
        case T_IQ2_S: return 2 * nibble_at(b + 74, s) + 1;
        case T_IQ3_S: return 2 * nibble_at(b + 106, s) + 1;
        case T_IQ1_S: return 2 * (half_at(b, 34 + 2 * s) >> 12 & 7) + 1;
        case T_IQ1_M: return 2 * (half_at(b, 48 + s / 4 * 2) >> (s % 4 * 3) & 7) + 1;
        // Codes of -1, 0 and 1 are kept one larger.
        case T_TQ1_0: case T_TQ2_0: return 1 | 1 << 8;
        case T_IQ4_XS: {
            u32 low = b[4 + s / 2] >> (s % 2 * 4) & 15, high = half_at(b, 2) >> (2 * s) & 3;
            return ((low | high << 4) - 32) & 255;
        }
        default: return 0;
    }
}

// The bits of a block's float scale, and of its minimum in the upper half.
__device__ u32 float_scale(int type, const u8* b) {
    switch (type) {
        case T_Q2_K: return half_at(b, 80) | half_at(b, 82) << 16;
        case T_Q3_K: return half_at(b, 108);
        case T_Q6_K: return half_at(b, 208);
        case T_IQ1_M: {
            u32 d = 0;
            for (int i = 0; i < 4; i++) d |= (half_at(b, 48 + 2 * i) >> 12) << (4 * i);
            return d;
        }
        case T_TQ1_0: return half_at(b, 52) * 0x10001;
        case T_TQ2_0: return half_at(b, 64) * 0x10001;
        // 2^(exponent - 128) as bfloat16, half of what it means: codes are twice their values.
        case T_MXFP4: return b[0] < 2 ? 0x20 << b[0] : (u32)(b[0] - 1) << 7;
        case T_Q4_1: case T_Q5_1: case T_Q4_K: case T_Q5_K: return half_at(b, 0) | half_at(b, 2) << 16;
        default: return half_at(b, 0);
    }
}

// The bits of half of what scale `s` of NVFP4 means: four bits of exponent, three of mantissa.
__device__ u32 small_scale(const u8* b, int s) {
    int exponent = b[s] >> 3 & 15, mantissa = b[s] & 7;
    float scale = b[s] == 0x7f ? 0.f : exponent ? ldexpf(8.f + mantissa, exponent - 11) : mantissa / 1024.f;
    return __half_as_ushort(__float2half_rn(scale));
}

struct Source {
    const u8* data;
    // The codebooks' entries.
    const u16* grid;
    u64 row_bytes;
    int rows, columns, type;
    // What half floats are multiplied with: a power of two, for bfloat16.
    float factor;
};

// The block that holds `column` of `row`, or null past the last row or column.
__device__ const u8* block_of(const Source& s, int row, int column, int length) {
    if (row >= s.rows || column >= s.columns) return nullptr;
    return s.data + row * s.row_bytes + (u64)(column / length) * block_bytes(s.type);
}

__device__ u32 half_bits_of(const Source& s, int row, int column) {
    const u8* b = block_of(s, row, column, 1);
    if (!b) return 0;
    u32 bits = half_at(b, 0);
    if (s.type == T_BF16) bits = __half_as_ushort(__float2half_rn(__uint_as_float(bits << 16) * s.factor));
    return bits;
}

template <class F>
__device__ void pack_tile(const Source& s, u8* tile, int row0, int column0, int quarters) {
    int lane = threadIdx.x % 32, q = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int length = block_length(s.type, F::by32 ? 32 : F::scales == NO_SCALES ? 1 : 256);
    if constexpr (F::codes == HALF) {
        if (q < quarters)
            for (int step = 0; step < 4; step++)
                for (int i = 0; i < 4; i++) {
                    int row = row0 + g + 8 * (i % 2), column = column0 + q * 64 + step * 16 + i / 2 * 8 + 2 * t;
                    u32 word = half_bits_of(s, row, column) | half_bits_of(s, row, column + 1) << 16;
                    ((u32*)(tile + q * quarter_stride<F>()))[(step * 32 + lane) * 4 + i] = word;
                }
        return;
    }
    u32 low[2 * 4] = {}, two[2] = {}, one = 0;
#pragma unroll
    for (int b = 0; b < 2; b++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll 1
            for (int j = 0; j < 4; j++) {
                int row = row0 + g + 8 * (i % 2), column = column0 + q * 64 + b * 32 + i / 2 * 16 + 4 * t + j;
                const u8* block = block_of(s, row, column, length);
                u32 c = block ? code(s.type, block, column % length, s.grid) : 0;
                if constexpr (F::codes == I8) low[4 * b + i] |= c << (8 * j);
                else if constexpr (F::codes == TABLE) low[i] |= c << (16 * b + 4 * j);
                else if constexpr (F::codes != U2 && F::codes != U3) low[i] |= (c & 15) << (8 * j + 4 * b);
                if constexpr (F::codes == U6) two[b] |= (c >> 4) << (8 * j + 2 * i);
                if constexpr (F::codes == U2 || F::codes == U3) two[b] |= (c & 3) << (8 * j + 2 * i);
                if constexpr (F::codes == U5) one |= (c >> 4) << (8 * j + 4 * b + i);
                if constexpr (F::codes == U3) one |= (c >> 2) << (8 * j + 4 * b + i);
            }
    constexpr int WORDS = low_plane(F::codes) / 128;
    if (q < quarters)
        for (int i = 0; i < WORDS; i++) ((u32*)tile)[((q * (WORDS / 4) + i / 4) * 32 + lane) * 4 + i % 4] = low[i];
    if constexpr (two_bits(F::codes) > 0)
        for (int b = 0; b < 2; b++)
            ((u32*)(tile + F::two_at(quarters)))[(q / 2 * 32 + lane) * 4 + q % 2 * 2 + b] = two[b];
    if constexpr (one_bit(F::codes) > 0) ((u32*)(tile + F::one_at(quarters)))[lane * 4 + q] = one;

    // Scales: one thread for one output and some columns.
    u8 *scales = tile + F::scales_at(quarters), *mins = tile + F::mins_at(quarters);
    if constexpr (F::scales == BLOCK) {
        int r = threadIdx.x / 8, at = threadIdx.x % 8;
        const u8* block = block_of(s, row0 + r, column0 + at * 32, length);
        u32 d = block ? float_scale(s.type, block) : 0;
        int place = (r % 8 * 2 + r / 8) * 8 + at;
        ((u16*)scales)[place] = d;
        if constexpr (F::min) ((u16*)mins)[place] = d >> 16;
    } else if constexpr (F::scales == TWIN) {
        for (int n = threadIdx.x; n < TILE * 16; n += 128) {
            int r = n / 16, at = n % 16;
            const u8* block = block_of(s, row0 + r, column0 + at * 16, length);
            ((u16*)scales)[(r % 8 * 2 + r / 8) * 16 + at] = block ? small_scale(block, at % 4) : 0;
        }
    } else {
        constexpr int COUNT = F::scales == SUPER32 ? 8 : 16;
        for (int n = threadIdx.x; n < TILE * COUNT; n += 128) {
            int r = n / COUNT, at = n % COUNT;
            const u8* block = block_of(s, row0 + r, column0, 256);
            u32 both = block ? integer_scale(s.type, block, at) : 0;
            scales[(r % 8 * 2 + r / 8) * COUNT + at] = both;
            if constexpr (F::min) {
                // As the left operand of a half-float product: columns 0..8, then 8..16 of the 16 sums.
                if (F::scales == SUPER32) mins[(r % 8 * 4 + at % 4) * 4 + at / 4 * 2 + r / 8] = both >> 8;
                else mins[(r % 8 * 4 + at % 8 / 2) * 8 + at / 8 * 4 + r / 8 * 2 + at % 2] = both >> 8;
            }
        }
        if (threadIdx.x < TILE) {
            int r = threadIdx.x;
            const u8* block = block_of(s, row0 + r, column0, 256);
            u32 d = block ? float_scale(s.type, block) : 0;
            u8* floats = tile + F::floats_at(quarters);
            if constexpr (F::min) ((u32*)floats)[r % 8 * 2 + r / 8] = d;
            else ((u16*)floats)[r % 8 * 2 + r / 8] = d;
        }
    }
}

// What number `column` (within the chunk) of output `r` of a tile is worth.
template <class F>
__device__ float weight(const u8* tile, int r, int column, int quarters) {
    int g = r % 8, q = column / 64, b = column / 32 % 2, within = column % 32;
    if constexpr (F::codes == HALF) {
        int step = column / 16 % 4, k = column % 16, i = r / 8 + 2 * (k / 8), lane = 4 * g + k % 8 / 2;
        return half_bits(((const u16*)(tile + q * quarter_stride<F>()))[((step * 32 + lane) * 4 + i) * 2 + k % 2]);
    }
    int lane = 4 * g + within % 16 / 4, i = r / 8 + 2 * (within / 16), j = within % 4;
    const u8* low = tile + ((q * (low_plane(F::codes) / 512)) * 32 + lane) * 16;
    u32 c = 0;
    if constexpr (F::codes == I8) c = low[b * 512 + i * 4 + j];
    else if constexpr (F::codes == TABLE) c = low[i * 4 + 2 * b + j / 2] >> (4 * (j % 2)) & 15;
    else if constexpr (F::codes != U2 && F::codes != U3) c = low[i * 4 + j] >> (4 * b) & 15;
    u32 two = 0, one = 0;
    if constexpr (two_bits(F::codes) > 0)
        two = tile[F::two_at(quarters) + ((q / 2 * 32 + lane) * 4 + q % 2 * 2 + b) * 4 + j] >> (2 * i) & 3;
    if constexpr (one_bit(F::codes) > 0)
        one = tile[F::one_at(quarters) + (lane * 4 + q) * 4 + j] >> (4 * b + i) & 1;
    float value;
    if constexpr (F::codes == I8) value = (signed char)c;
    else if constexpr (F::codes == TABLE) value = value_of<F::values>(c) * F::unit;
    else if constexpr (F::codes == U4) value = F::center ? (int)(c ^ 8) - 8 : (int)c;
    else if constexpr (F::codes == U5) value = F::center ? (int)((c | one << 4) ^ 16) - 16 : (int)(c | one << 4);
    else if constexpr (F::codes == U6) value = (int)((c | two << 4) ^ 32) - 32;
    else if constexpr (F::codes == U2) value = two;
    else value = (int)((two | one << 2) ^ 4) - 4;
    const u8 *scales = tile + F::scales_at(quarters), *mins = tile + F::mins_at(quarters);
    int pair = g * 2 + r / 8;
    if constexpr (F::scales == BLOCK) {
        int place = pair * 8 + column / 32;
        u32 bits = ((const u16*)scales)[place];
        float w = (F::powers ? __uint_as_float(bits << 16) : half_bits(bits)) * value;
        return F::min ? w + half_bits(((const u16*)mins)[place]) : w;
    } else if constexpr (F::scales == TWIN) {
        return half_bits(((const u16*)scales)[pair * 16 + column / 16]) * value;
    } else {
        constexpr int WIDTH = F::scales == SUPER32 ? 32 : 16, COUNT = 256 / WIDTH;
        int at = column / WIDTH;
        int scale = (signed char)scales[pair * COUNT + at];
        const u8* floats = tile + F::floats_at(quarters);
        if constexpr (F::min) {
            u32 d = ((const u32*)floats)[pair];
            int place = F::scales == SUPER32 ? (g * 4 + at % 4) * 4 + at / 4 * 2 + r / 8
                                             : (g * 4 + at % 8 / 2) * 8 + at / 8 * 4 + r / 8 * 2 + at % 2;
            return half_bits(d) * scale * value - half_bits(d >> 16) * mins[place];
        }
        return half_bits(((const u16*)floats)[pair]) * scale * value;
    }
}

__device__ __forceinline__ int quarters_of(int chunk, int columns) {
    int left = (columns - chunk * CHUNK + QUARTER - 1) / QUARTER;
    return left < 4 ? left : 4;
}

// One block of 128 threads for one tile: x is the chunk, y and z the tile's row of `tile_rows`.
extern "C" __global__ void pack(Source s, u8* out, u64 tile_row_bytes, int format, int tile_rows) {
    int tile_row = blockIdx.y + blockIdx.z * gridDim.y;
    if (tile_row >= tile_rows) return;
    int chunk = blockIdx.x, quarters = quarters_of(chunk, s.columns);
    switch (format) {
#define CASE(N, F) \
    case N: {                                                                       \
        u8* tile = out + tile_at<F>(tile_row, chunk, quarters, tile_row_bytes);     \
        pack_tile<F>(s, tile, tile_row * TILE, chunk * CHUNK, quarters);            \
        break;                                                                      \
    }
        FOR_EACH_FORMAT(CASE)
#undef CASE
    }
}

// out[r] = scale * table[tokens[r]]: x is 256 columns, y the row. `factor` undoes that of `Source`.
extern "C" __global__ void embed(const u8* table, u64 tile_row_bytes, int format, int columns, float scale,
                                 const u32* tokens, float* out) {
    wait_for_previous();
    let_next_start();
    int chunk = blockIdx.x, column = chunk * CHUNK + threadIdx.x;
    if (column >= columns) return;
    u32 token = tokens[blockIdx.y];
    int quarters = quarters_of(chunk, columns);
    float w = 0.f;
    switch (format) {
#define CASE(N, F) \
    case N: {                                                                               \
        const u8* tile = table + tile_at<F>(token / TILE, chunk, quarters, tile_row_bytes); \
        w = weight<F>(tile, token % TILE, threadIdx.x, quarters);                           \
        break;                                                                              \
    }
        FOR_EACH_FORMAT(CASE)
#undef CASE
    }
    out[(u64)blockIdx.y * columns + column] = w * scale;
}

// The same from a table of floats.
extern "C" __global__ void embed_f32(const float* table, int columns, float scale, const u32* tokens, float* out) {
    wait_for_previous();
    let_next_start();
    int column = blockIdx.x * CHUNK + threadIdx.x;
    if (column < columns) out[(u64)blockIdx.y * columns + column] = table[(u64)tokens[blockIdx.y] * columns + column] * scale;
}
