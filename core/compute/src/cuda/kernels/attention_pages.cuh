// What the kernels of `attention.cu` read of pages of half floats and of pages of codes: how it is copied to the ring, and how it becomes
// operands.
#pragma once

#include "attention_ring.cuh"

// Half floats, as strips.
struct Halves {
    // Bytes that a warp copies at a time.
    static constexpr int COPY = 2048, STAGES = 4;
    static constexpr bool CODES = false;

    __device__ __forceinline__ static u32 head_bytes(int padded) { return 2 * PAGE * padded; }

    // A piece of a page's keys, eight tokens after another. Those of tokens that are not there stay what they were: their scores
    // are masked.
    __device__ __forceinline__ static void copy_keys(u32 to, const u8* page, int piece, int pieces, int tokens) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + piece * 512 + lane * 16;
        to += lane * 16;
        copy_async<16>(to, from);
        if (tokens > 8) copy_async<16>(to + 512, from + pieces * 512);
        if (tokens > 16) copy_async<16>(to + 1024, from + pieces * 1024);
        if (tokens > 24) copy_async<16>(to + 1536, from + pieces * 1536);
    }

    // `count` strips of a page's values. Tokens that are not there are zeros: what an earlier owner of the page left behind may
    // be no number, and times zero it would still be none.
    __device__ __forceinline__ static void copy_values(u32 to, const u8* page, int strip, int count, int tokens) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + strip * 512 + lane * 16;
        const u32 bytes = lane < tokens ? 16 : 0;
        to += lane * 16;
        copy_or_zero(to, from, bytes);
        if (count > 1) copy_or_zero(to + 512, from + 512, bytes);
        if (count > 2) copy_or_zero(to + 1024, from + 1024, bytes), copy_or_zero(to + 1536, from + 1536, count > 3 ? bytes : 0);
    }

    // Keys of the tokens `8 n ..` and `8 n + 8 ..` as right operands, for 16 numbers.
    struct Keys {
        u32 at;
        __device__ __forceinline__ Keys(u32 at) : at(at + threadIdx.x / 8 % 2 * 128 + threadIdx.x / 16 % 2 * 512 + threadIdx.x % 8 * 16) {}
        __device__ __forceinline__ void load(u32 (&b)[4], int step, int n) const { load_matrices(b, at + step * 256 + n * 512); }
    };

    // Values of a strip as right operands, for 32 tokens.
    struct Values {
        u32 at;
        __device__ __forceinline__ Values(u32 at, int, int) : at(at + threadIdx.x % 32 * 16) {}
        __device__ __forceinline__ void load(u32 (&b)[4], int strip) const { load_transposed(b, at + strip * 512); }
    };
};

// Codes, which become half floats in registers.
struct Codes {
    static constexpr int COPY = 4 * (256 + 64), STAGES = 4;
    static constexpr bool CODES = true;

    __device__ __forceinline__ static u32 head_bytes(int padded) { return CODES_PIECE / PIECE * padded; }

    __device__ __forceinline__ static void copy_keys(u32 to, const u8* page, int piece, int, int) {
        const int lane = threadIdx.x % 32;
        const u8* from = page + piece * CODES_PIECE + lane * 16;
#pragma unroll
        for (int i = 0; i < 2; i++) copy_async<16>(to + i * 512 + lane * 16, from + i * 512);
        if (lane < 8) copy_async<16>(to + 1024 + lane * 16, from + 1024);
    }

    // Strips' codes, and then their pieces' factors: once, if they are the four of a piece.
    __device__ __forceinline__ static void copy_values(u32 to, const u8* page, int strip, int count, int tokens) {
        if (tokens <= 0) return;
        if (count == 4) {
            const int lane = threadIdx.x % 32;
            const u8* from = page + strip / 4 * CODES_PIECE + lane * 16;
            to += lane * 16;
            copy_async<16>(to, from), copy_async<16>(to + 512, from + 512);
            if (lane < 4) copy_async<16>(to + 1024, from + 1024);
            return;
        }
#pragma unroll 1
        for (int i = 0; i < 3; i++) {
            const int unit = threadIdx.x % 32 + 32 * i, at = unit / 20, part = unit % 20;
            const u8* piece = page + (strip + at) / 4 * CODES_PIECE;
            if (at < count)
                copy_async<16>(to + (part < 16 ? at * 256 : 1024 - 256 + at * 64) + part * 16,
                               piece + (part < 16 ? (strip + at) % 4 * 256 : FACTORS_AT - 256) + part * 16);
        }
    }

    // A lane has of the tokens `8 n + g` eight numbers, four for each of two steps.
    struct Keys {
        uint2 codes[4];
        __half2 factors[4];
        uint4 first;
        __device__ __forceinline__ Keys(u32 shared) {
            const u8* at = (const u8*)__cvta_shared_to_generic(shared);
            first = load16(at + FIRST_KEY_AT + threadIdx.x % 4 * 16);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                codes[n] = load8(at + n * 256 + threadIdx.x % 32 * 8);
                factors[n] = __half2half2(*(const __half*)(at + FACTORS_AT + 2 * (8 * n + threadIdx.x % 32 / 4)));
            }
        }
        __device__ __forceinline__ void load(u32 (&b)[4], int step, int n) const {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 four = step ? codes[n + i].y : codes[n + i].x;
                b[2 * i] = half2_bits(__hfma2(code_pair(four, false), factors[n + i], bits_half2(step ? first.z : first.x)));
                b[2 * i + 1] = half2_bits(__hfma2(code_pair(four, true), factors[n + i], bits_half2(step ? first.w : first.y)));
            }
        }
    };

    // Strips' values of a page. Factors of tokens that are not there become zeros: they may be no number.
    struct Values {
        const u8* at;
        u32 factors[4];
        int tokens;
        bool together;

        __device__ __forceinline__ Values(u32 shared, int count, int tokens)
            : at((const u8*)__cvta_shared_to_generic(shared)), tokens(tokens), together(count == 4) {
            load_factors(0);
        }
        __device__ __forceinline__ void load_factors(int strip) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int token = 8 * i + threadIdx.x % 4 * 2;
                factors[i] = *(const u32*)(at + 1024 + strip * 64 + 2 * token);
                if (tokens < PAGE) factors[i] &= token + 1 < tokens ? ~0u : token < tokens ? 0xffffu : 0u;
            }
        }
        __device__ __forceinline__ void load(u32 (&b)[4], int strip) {
            if (strip > 0 && !together) load_factors(strip);
            const uint2 codes = load8(at + strip * 256 + threadIdx.x % 32 * 8);
#pragma unroll
            for (int i = 0; i < 4; i++) b[i] = half2_bits(__hmul2(code_pair(i < 2 ? codes.x : codes.y, i % 2), bits_half2(factors[i])));
        }
    };
};
