// How a page of the KV cache holds the keys, or the values, of a key/value head.
//
// Numbers come eight at a time, a *strip*, of eight tokens or more: `ldmatrix` and `wgmma` read that without bank conflicts, transposed
// or not. Values, and keys of single-precision floats, are the strips `[padded / 8][32 tokens][8]`; keys of half floats are eight
// tokens at a time, `[4][padded / 8][8 tokens][8]`, so that pages one after the other are an operand of `wgmma`.
//
// 8-bit codes, stored 128 too large, and for each 32 numbers of a token, a *piece*, a factor. A piece of a page's keys is the codes
// `[32 tokens][32]`, the half floats' factors `[32 tokens]` and the half floats `[32]` of the page's first key, from which codes
// count the difference. A piece of its values is the codes of four strips, each `[8 numbers][4][8]` (see `value_code_at`), the
// factors, and as many bytes that are not used.
#pragma once

#include "common.cuh"

// Numbers of a strip, and of a piece.
constexpr int STRIP = 8;
constexpr int PIECE = 32;

// Where number `d` of a token is among the floats of a head in a page.
__device__ __forceinline__ int float_at(int token, int d) { return (d / STRIP * PAGE + token) * STRIP + d % STRIP; }

__device__ __forceinline__ int half_key_at(int token, int d, int padded) {
    return (token / 8 * (padded / STRIP) + d / STRIP) * 8 * STRIP + token % 8 * STRIP + d % STRIP;
}

// Bytes of a piece of codes, and where its factors and the first key are.
constexpr int CODES_PIECE = 36 * PIECE;
constexpr int FACTORS_AT = PAGE * PIECE;
constexpr int FIRST_KEY_AT = FACTORS_AT + 2 * PAGE;

__device__ __forceinline__ int key_code_at(int token, int d) { return d / PIECE * CODES_PIECE + token * PIECE + d % PIECE; }

// The codes that a lane multiplies with lie side by side: of one number, those of the tokens `2 t`, `2 t + 1`, `2 t + 8`,
// `2 t + 9` and the same 16 tokens later.
__device__ __forceinline__ int value_code_at(int token, int d) {
    return d / PIECE * CODES_PIECE + d % PIECE * PAGE + token % 8 / 2 * 8 + token / 8 * 2 + token % 2;
}

__device__ __forceinline__ int factor_at(int token, int d) { return d / PIECE * CODES_PIECE + FACTORS_AT + 2 * token; }
__device__ __forceinline__ int first_key_at(int d) { return d / PIECE * CODES_PIECE + FIRST_KEY_AT + 2 * (d % PIECE); }

// Two of four codes as half floats.
__device__ __forceinline__ __half2 code_pair(u32 codes, bool upper) {
    u32 h = __byte_perm(codes, 0x64646464, upper ? 0x4342 : 0x4140);
    return __hsub2(*reinterpret_cast<__half2*>(&h), __floats2half2_rn(1152.f, 1152.f));
}

__device__ __forceinline__ u32 half2_bits(__half2 h) { return *reinterpret_cast<u32*>(&h); }
__device__ __forceinline__ __half2 bits_half2(u32 bits) { return *reinterpret_cast<__half2*>(&bits); }

// Stores the key, or the value, of a head of a row as codes, by a warp: `x` are its numbers, `head` the head in its page, `slot` the
// token in the page. `first` is the page's first key, if it is not in the page yet.
__device__ __forceinline__ void store_codes_of(u8* head, const float* x, const float* first, int slot, int dim, int padded, bool value) {
    // Pieces whose numbers are on their way together: nothing is stored before all are there.
    constexpr int AT_ONCE = 4;
    const int lane = threadIdx.x % 32;
    for (int begin = 0; begin < padded; begin += AT_ONCE * PIECE) {
        float y[AT_ONCE];
        __half offsets[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int j = begin + i * PIECE + lane;
            y[i] = j < dim ? x[j] : 0.f;
            offsets[i] = __float2half_rn(0.f);
            if (value || j >= padded) continue;
            if (!first) offsets[i] = *(__half*)(head + first_key_at(j));
            else if (j < dim) offsets[i] = __float2half_rn(fminf(fmaxf(first[j], -65504.f), 65504.f));
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int j = begin + i * PIECE + lane;
            if (!value) y[i] = __fsub_rn(y[i], __half2float(offsets[i]));
            // Rounded first: codes count in what will be multiplied with.
            const __half factor = __float2half_rn(fminf(__fdiv_rn(warp_max(fabsf(y[i])), 127.f), 65504.f));
            const float d = __half2float(factor), inverse = d > 0.f ? __fdiv_rn(1.f, d) : 0.f;
            const int code = (int)rintf(fminf(fmaxf(__fmul_rn(y[i], inverse), -127.f), 127.f)) + 128;
            if (j >= padded) continue;
            if (!value && slot == 0) *(__half*)(head + first_key_at(j)) = offsets[i];
            head[value ? value_code_at(slot, j) : key_code_at(slot, j)] = (u8)code;
            if (lane == 0) *(__half*)(head + factor_at(slot, j)) = factor;
        }
    }
}
