// How a page of the KV cache holds the keys and the values of a key/value head, and how attention reads them.
//
// Half floats: keys `[32][padded]`; values `[16][padded][2]`, two tokens side by side.
//
// 8-bit codes, stored 128 too large, and for each 32 numbers of a token a factor: keys are codes `[32][padded]`, factors
// `[padded / 32][32]` and the half floats `[padded]` of the page's first key, from which codes count the difference; values
// are codes `[16][padded][2]` and factors `[padded / 32][32]`. Both have room for `36 · padded` bytes.
//
// Single-precision floats: like half floats.
#pragma once

#include "common.cuh"

// Bytes of the keys, or values, of a head in a page.
template <int DIM, bool CODES>
__device__ __forceinline__ constexpr u64 part_bytes() {
    return CODES ? 36 * DIM : 2 * PAGE * DIM;
}

// Where things are among the codes of a head of `padded` numbers.
__device__ __forceinline__ int factors_at(int padded) { return PAGE * padded; }
__device__ __forceinline__ int first_key_at(int padded) { return PAGE * padded + 2 * padded; }

// Two of four codes as half floats.
__device__ __forceinline__ __half2 code_pair(u32 codes, bool upper) {
    u32 h = __byte_perm(codes, 0x64646464, upper ? 0x4342 : 0x4140);
    return __hsub2(*reinterpret_cast<__half2*>(&h), __floats2half2_rn(1152.f, 1152.f));
}

__device__ __forceinline__ u32 half2_bits(__half2 h) { return *reinterpret_cast<u32*>(&h); }

// The first key of a page: of every 32 numbers, a lane's 8.
template <int DIM, bool CODES>
struct Offsets {
    uint4 x[CODES ? DIM / 32 : 1];

    __device__ __forceinline__ void load(const u8* page) {
        if constexpr (CODES) {
            const u8* from = page + first_key_at(DIM) + threadIdx.x % 4 * 16;
#pragma unroll
            for (int piece = 0; piece < DIM / 32; piece++) x[piece] = load16(from + piece * 64);
        }
    }

    __device__ __forceinline__ static uint4 piece(const u8* page, int piece) {
        if constexpr (CODES) return load16(page + first_key_at(DIM) + threadIdx.x % 4 * 16 + piece * 64);
        else return {0, 0, 0, 0};
    }
};

// 32 numbers of a key as the right operand of a product: lane `4 g + t` has of token `8 n + g` of a page 8 numbers.
template <int DIM, bool CODES>
struct KeyPiece {
    uint4 halves;
    uint2 codes;
    __half factor;

    __device__ __forceinline__ void load(const u8* page, int n, int piece) {
        const int token = 8 * n + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        if constexpr (CODES) {
            codes = load8(page + token * DIM + piece * 32 + 8 * t);
            factor = *(const __half*)(page + factors_at(DIM) + (piece * PAGE + token) * 2);
        } else {
            halves = load16(page + (token * DIM + piece * 32 + 8 * t) * 2);
        }
    }

    // `x` is that piece of the page's first key.
    __device__ __forceinline__ uint4 operand(const uint4& x) const {
        if constexpr (!CODES) return halves;
        else {
            const __half2 d = __half2half2(factor);
            auto key = [&](u32 four, bool upper, u32 offset) {
                return half2_bits(__hfma2(code_pair(four, upper), d, *reinterpret_cast<const __half2*>(&offset)));
            };
            return {key(codes.x, false, x.x), key(codes.x, true, x.y), key(codes.y, false, x.z), key(codes.y, true, x.w)};
        }
    }
};

// A whole key.
template <int DIM, bool CODES>
struct Key {
    KeyPiece<DIM, CODES> pieces[DIM / 32];

    __device__ __forceinline__ void load(const u8* page, int n) {
#pragma unroll
        for (int piece = 0; piece < DIM / 32; piece++) pieces[piece].load(page, n, piece);
    }

    __device__ __forceinline__ uint4 operand(int piece, const Offsets<DIM, CODES>& offsets) const {
        return pieces[piece].operand(offsets.x[CODES ? piece : 0]);
    }
};

// Values of two tokens as the right operand of a product: lane `4 g + t` has four numbers of the pair `first + t` of a page.
template <int DIM, bool CODES>
struct Pair {
    uint4 halves;
    uint2 codes;
    __half2 factor;

    __device__ __forceinline__ void load(const u8* page, int first, int piece) {
        const int g = threadIdx.x % 32 / 4, pair = first + threadIdx.x % 4, at = (pair * DIM + 32 * piece + 4 * g) * 2;
        if constexpr (CODES) {
            codes = load8(page + at);
            factor = *(const __half2*)(page + factors_at(DIM) + (piece * PAGE + 2 * pair) * 2);
        } else {
            halves = load16(page + at * 2);
        }
    }

    __device__ __forceinline__ uint4 operand() const {
        if constexpr (!CODES) return halves;
        else
            return {half2_bits(__hmul2(code_pair(codes.x, false), factor)), half2_bits(__hmul2(code_pair(codes.x, true), factor)),
                    half2_bits(__hmul2(code_pair(codes.y, false), factor)), half2_bits(__hmul2(code_pair(codes.y, true), factor))};
    }
};
