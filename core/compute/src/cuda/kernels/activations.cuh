// The other operand of a product: rows of activations as tensor cores read them.
//
// A row is cut into chunks of 256 columns, and each chunk is made by one warp, of whose lanes each has 8 consecutive
// columns. There are three forms:
//
// - `q256` for K-quants: signed bytes, one scale for 256 columns, and the sums of 16 codes as half floats (exact:
//   16 · 127 < 2048);
// - `q32` for types with a scale for 32 weights: signed bytes, a scale for 32 columns and that scale times their sum;
// - `f16` for floats: half floats and a power of two for 256 columns, which is 1 unless a number is too large.
//
// Hopper's kernels for many rows (`hopper_gemm.cuh`) read them another way: `t256` and `t32` have the codes of `q256` and `q32` as
// half floats, `t16` the half floats of `f16`. There 64 columns of all rows lie together, 128 bytes a row, as the copy engine takes them
// to shared memory and `wgmma` wants them there (see `row_operand`). Of every 16 columns the codes are in the order 0 2 4 6 8 10 12
// 14 1 3 5 7 9 11 13 15, which is how a word of four weights comes apart.
//
// In the other forms, inside every 64 bytes the words are in the order in which the lanes of a quad want them: word `w` of block `s` of
// 32 bytes is at `64 (s / 2) + 16 (w % 4) + 8 (s % 2) + 4 (w / 4)`. Rows are padded to 64 columns with zeros.
#pragma once

#include "common.cuh"

struct Forms {
    u8* q256;        // [rows, padded]
    __half* sums16;  // [rows, padded / 16], in every 16 the order 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15
    float* d256;     // [rows, chunks]
    u8* q32;         // [rows, padded]
    float* d32;      // [rows, padded / 32]
    float* s32;      // [rows, padded / 32]
    __half* f16;     // [rows, padded]
    float* scale16;  // [rows, chunks]
    u8* t256;        // [padded / 64, room256, 128]
    u8* tsums;       // [chunks, room256 / 8, 2, 8, 16]: of eight rows the first 8 sums of 16 codes, then the last 8
    float* td256;    // [chunks, room256]
    u8* t16;         // [padded / 64, room16, 128]
    float* tscale16; // [chunks, room16]
    u8* t32;         // [padded / 64, room32, 128]
    float* td32;     // [padded / 32, room32]
    int padded;
    int chunks;
    int room256;
    int room16;
    int room32;
};

__device__ __forceinline__ int fragment_offset(int block, int word) {
    return (block >> 1) * 64 + (word & 3) * 16 + (block & 1) * 8 + (word >> 2) * 4;
}

// What numbers are multiplied with to become codes, whose largest is 127. Numbers as small as these would make it infinite: they
// are 0.
__device__ __forceinline__ float inverse_of(float max) { return max > 1e-36f ? __fdiv_rn(127.f, max) : 0.f; }

// Four codes as bytes; a NaN becomes 0.
__device__ __forceinline__ u32 codes4(const float* x, float inverse) {
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) word |= (u32)(u8)__float2int_rn(__fmul_rn(x[i], inverse)) << (8 * i);
    return word;
}

__device__ __forceinline__ int sum4(u32 codes) { return __dp4a((int)codes, 0x01010101, 0); }

// Bytes `shift / 8` and `shift / 8 + 2` of four codes, as half floats.
__device__ __forceinline__ u32 code_halves(u32 codes, int shift) {
    int word = (int)(codes >> shift);
    __half2 h = __halves2half2(__int2half_rn((signed char)word), __int2half_rn((signed char)(word >> 16)));
    return *reinterpret_cast<u32*>(&h);
}

// Where a lane's quarter of a chunk of a row is in `t256`, `t32` and `t16`, and in there 16 bytes.
__device__ __forceinline__ u8* tile_row(u8* tiles, int room, int row, int chunk) {
    return tiles + ((size_t)(chunk * 4 + threadIdx.x % 32 / 8) * room + row) * 128;
}
__device__ __forceinline__ int tile_unit(int row, int unit) { return (unit ^ row % 8) * 16; }

// Writes a lane's eight codes as half floats.
__device__ __forceinline__ void put_code_halves(u8* tile_row, int row, u32 low, u32 high) {
    const int lane = threadIdx.x % 32, unit = lane % 8 / 2 * 2;
    u8* out = tile_row + lane % 2 * 8;
    *(uint2*)(out + tile_unit(row, unit)) = {code_halves(low, 0), code_halves(high, 0)};
    *(uint2*)(out + tile_unit(row, unit + 1)) = {code_halves(low, 8), code_halves(high, 8)};
}

// Writes the forms that are asked for (those with memory) of one chunk. Lane `l` has columns 8 l ..; those past the end
// are zeros.
__device__ __forceinline__ void put_forms(const Forms& f, int row, int chunk, const float (&x)[8]) {
    int lane = threadIdx.x % 32;
    int column = chunk * CHUNK + lane * 8;
    bool inside = column < f.padded;
    float largest = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(x[i]));
    if (f.q256 || f.t256) {
        float max = warp_max(largest);
        float inverse = inverse_of(max), d = __fdiv_rn(max, 127.f);
        u32 low = codes4(x, inverse), high = codes4(x + 4, inverse);
        int sum = sum4(low) + sum4(high);
        sum += __shfl_xor_sync(~0u, sum, 1);
        int s = lane / 2;  // which 16 columns
        int at = s / 8 * 2 + s % 8 / 2 * 4 + s % 2;
        if (f.q256) {
            u8* out = f.q256 + (size_t)row * f.padded + chunk * CHUNK;
            int block = lane / 4, word = lane % 4 * 2;
            if (inside) {
                *(u32*)(out + fragment_offset(block, word)) = low;
                *(u32*)(out + fragment_offset(block, word + 1)) = high;
                if (lane % 2 == 0) f.sums16[((size_t)row * f.padded + chunk * CHUNK) / 16 + at] = __int2half_rn(sum);
            }
            if (lane == 0) f.d256[(size_t)row * f.chunks + chunk] = d;
        }
        if (f.t256) {
            const size_t row_at = (size_t)chunk * f.room256 + row;
            if (inside) {
                put_code_halves(tile_row(f.t256, f.room256, row, chunk), row, low, high);
                u8* sums = f.tsums + (row_at - row % 8) * 32 + lane / 16 * 128 + row % 8 * 16;
                if (lane % 2 == 0) ((__half*)sums)[s % 8] = __int2half_rn(sum);
            }
            if (lane == 0) f.td256[row_at] = d;
        }
    }
    if (f.q32 || f.t32) {
        float max = largest;
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 1));
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 2));
        float inverse = inverse_of(max), d = __fdiv_rn(max, 127.f);
        u32 low = codes4(x, inverse), high = codes4(x + 4, inverse);
        int sum = sum4(low) + sum4(high);
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        int block = lane / 4, word = lane % 4 * 2;
        if (f.t32 && inside) {
            put_code_halves(tile_row(f.t32, f.room32, row, chunk), row, low, high);
            if (lane % 4 == 0) f.td32[(size_t)(column / 32) * f.room32 + row] = d;
        }
        if (f.q32 && inside) {
            u8* out = f.q32 + (size_t)row * f.padded + chunk * CHUNK;
            *(u32*)(out + fragment_offset(block, word)) = low;
            *(u32*)(out + fragment_offset(block, word + 1)) = high;
            if (lane % 4 == 0) {
                size_t at = ((size_t)row * f.padded + column) / 32;
                f.d32[at] = d;
                f.s32[at] = __fmul_rn(d, (float)sum);
            }
        }
    }
    if (f.f16 || f.t16) {
        float max = warp_max(largest);
        // Scaled down by a power of two if the largest half float is near; infinities stay what they are.
        float scale = 1.f;
        if (max > 32768.f && max < INFINITY) scale = exp2f((float)(ilogbf(max) - 14));
        float inverse = 1.f / scale;
        u32 pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) pairs[i] = pack_halves(x[2 * i] * inverse, x[2 * i + 1] * inverse);
        if (f.f16) {
            u8* out = (u8*)(f.f16 + (size_t)row * f.padded + chunk * CHUNK);
            int block = lane / 2, word = lane % 2 * 4;
            if (inside)
#pragma unroll
                for (int i = 0; i < 4; i++) *(u32*)(out + fragment_offset(block, word + i)) = pairs[i];
            if (lane == 0) f.scale16[(size_t)row * f.chunks + chunk] = scale;
        }
        if (f.t16) {
            u8* out = tile_row(f.t16, f.room16, row, chunk) + tile_unit(row, lane % 8);
            if (inside) *(uint4*)out = {pairs[0], pairs[1], pairs[2], pairs[3]};
            if (lane == 0) f.tscale16[(size_t)chunk * f.room16 + row] = scale;
        }
    }
}

// Eight consecutive numbers of a row, zeros past its end. Rows of a multiple of four columns are read 16 bytes at a time.
__device__ __forceinline__ void load_row8(const float* x, int column, int columns, float (&out)[8]) {
    if (columns % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float4 v = make_float4(0, 0, 0, 0);
            if (column + 4 * i < columns) v = *reinterpret_cast<const float4*>(x + column + 4 * i);
            out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = column + i < columns ? x[column + i] : 0.f;
    }
}

__device__ __forceinline__ void store_row8(float* x, int column, int columns, const float (&v)[8]) {
    if (columns % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (column + 4 * i < columns)
                *reinterpret_cast<float4*>(x + column + 4 * i) =
                    make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (column + i < columns) x[column + i] = v[i];
    }
}
