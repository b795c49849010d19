// From the blocks of a GGUF file to tiles, and from tiles to rows of embeddings.
//
// The layouts of blocks are `block_*` in ggml's `ggml-common.h`.

#include "format.cuh"

// ggml's ids.
enum Type { T_F32 = 0, T_F16 = 1, T_Q4_0 = 2, T_Q4_1 = 3, T_Q5_0 = 6, T_Q5_1 = 7, T_Q8_0 = 8, T_Q2_K = 10, T_Q3_K = 11,
            T_Q4_K = 12, T_Q5_K = 13, T_Q6_K = 14, T_Q8_K = 15, T_IQ4_NL = 20, T_IQ4_XS = 23, T_BF16 = 30 };

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
        default: return 2;
    }
}

__device__ u32 half_at(const u8* b, int at) { return b[at] | b[at + 1] << 8; }

// The code of number `i` of a block, as it is put into planes: see `format.cuh` about centers.
__device__ u32 code(int type, const u8* b, int i) {
    int j = i % 16, high = i / 16;
    switch (type) {
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
        case T_Q4_1: case T_Q5_1: case T_Q4_K: case T_Q5_K: return half_at(b, 0) | half_at(b, 2) << 16;
        default: return half_at(b, 0);
    }
}

struct Source {
    const u8* data;
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
    constexpr int LENGTH = F::scales == BLOCK ? 32 : F::scales == NO_SCALES ? 1 : 256;
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
                const u8* block = block_of(s, row, column, LENGTH);
                u32 c = block ? code(s.type, block, column % LENGTH) : 0;
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
        const u8* block = block_of(s, row0 + r, column0 + at * 32, 32);
        u32 d = block ? float_scale(s.type, block) : 0;
        int place = (r % 8 * 2 + r / 8) * 8 + at;
        ((u16*)scales)[place] = d;
        if constexpr (F::min) ((u16*)mins)[place] = d >> 16;
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
    else if constexpr (F::codes == TABLE) value = iq4_values[c];
    else if constexpr (F::codes == U4) value = F::center ? (int)(c ^ 8) - 8 : (int)c;
    else if constexpr (F::codes == U5) value = F::center ? (int)((c | one << 4) ^ 16) - 16 : (int)(c | one << 4);
    else if constexpr (F::codes == U6) value = (int)((c | two << 4) ^ 32) - 32;
    else if constexpr (F::codes == U2) value = two;
    else value = (int)((two | one << 2) ^ 4) - 4;
    const u8 *scales = tile + F::scales_at(quarters), *mins = tile + F::mins_at(quarters);
    int pair = g * 2 + r / 8;
    if constexpr (F::scales == BLOCK) {
        int place = pair * 8 + column / 32;
        float w = half_bits(((const u16*)scales)[place]) * value;
        return F::min ? w + half_bits(((const u16*)mins)[place]) : w;
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
