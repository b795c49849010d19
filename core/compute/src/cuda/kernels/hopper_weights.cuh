// From codes to left operands of Hopper's half-float products: code times integer scale, exact (see `hopper.cu`).
//
// Of every 16 columns a word of codes has four on a lane. Its first and third byte are the operand's first pair, the others the
// second: activations are in that order (see `activations.cuh`).
#pragma once

#include "format.cuh"

// A constant that the compiler keeps in a register, as instructions have room for one constant only.
template <u32 VALUE>
__device__ __forceinline__ u32 in_register() {
    u32 value;
    asm("mov.u32 %0, %1;" : "=r"(value) : "n"(VALUE));
    return value;
}

// `x & MASK | BITS` and `x & MASK ^ BITS`.
template <u32 MASK, u32 BITS>
__device__ __forceinline__ u32 and_or(u32 x) {
    u32 y;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "n"(MASK), "r"(in_register<BITS>()));
    return y;
}
template <u32 MASK, u32 BITS>
__device__ __forceinline__ u32 and_xor(u32 x) {
    u32 y;
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(y) : "r"(x), "n"(MASK), "r"(in_register<BITS>()));
    return y;
}

// Two bytes, one in each half, become half floats 1024 too large.
__device__ __forceinline__ __half2 bytes_as_halves(u32 word, u32 selector, float less) {
    u32 h = __byte_perm(word, in_register<0x64646464>(), selector);
    return __hsub2(*reinterpret_cast<__half2*>(&h), __floats2half2_rn(less, less));
}

__device__ __forceinline__ u32 bits_of(__half2 h) { return *reinterpret_cast<u32*>(&h); }
__device__ __forceinline__ __half2 halves_of(u32 bits) { return *reinterpret_cast<__half2*>(&bits); }

// One lane's weights of a chunk of Q4_K.
struct Weights4 {
    uint4 low[4];
    uint4 scale;
    u32 min;
    uint2 d;

    __device__ __forceinline__ void load(const u8* tile) {
        int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
        for (int q = 0; q < 4; q++) low[q] = load16(tile + q * 512 + lane * 16);
        scale = load16(tile + Q4_K::scales_at(4) + g * 16);
        min = *(const u32*)(tile + Q4_K::mins_at(4) + lane * 4);
        d = load8(tile + Q4_K::floats_at(4) + g * 8);
    }

    // (Code - 8) · scale of quarter `q`: the left operands of four products.
    __device__ __forceinline__ void unpack(int q, u32 (&a)[4][4]) const {
        __half2 factor[2][2], less[2][2];
#pragma unroll
        for (int b = 0; b < 2; b++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int s = 2 * q + b;
                u32 word = Planes<Q4_K>::word(scale, 2 * r + s / 4);
                factor[b][r] = bytes_as_halves(word, 0x4040 | (s % 4) * 0x0101, 1024.f);
                less[b][r] = __hmul2(factor[b][r], __floats2half2_rn(-72.f, -72.f));
            }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 w = Planes<Q4_K>::word(low[q], i);
            const int r = i % 2, half = i / 2;
            // The bits of a code become the upper ones of a mantissa: 64 + code.
            auto times = [&](u32 code, int b) {
                return bits_of(__hfma2(halves_of(and_or<0x00f000f0, 0x54005400>(code)), factor[b][r], less[b][r]));
            };
            a[half][r] = times(w << 4, 0), a[half][2 + r] = times(w >> 4, 0);
            a[2 + half][r] = times(w, 1), a[2 + half][2 + r] = times(w >> 8, 1);
        }
    }

    // The scales of all 16 columns, as the left operand of a product with the sums of 16 codes.
    __device__ __forceinline__ void factors(u32 (&a)[4]) const {
        const u32 selector = 0x4040 | threadIdx.x % 4 * 0x0101;
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = bits_of(bytes_as_halves(Planes<Q4_K>::word(scale, i % 2 * 2 + i / 2), selector, 1024.f));
    }

    __device__ __forceinline__ void minimums(u32 (&a)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = bits_of(bytes_as_halves(min, 0x4040 | i * 0x0101, 1024.f));
    }
};

// One lane's weights of a quarter of a chunk of Q6_K: all of a chunk would take too many registers.
struct Weights6 {
    uint4 low;
    // Of both blocks, and of the outputs `g` and `g + 8`.
    u32 two[2];
    u32 scale[2];

    __device__ __forceinline__ void load(const u8* tile, int q) {
        const int lane = threadIdx.x % 32, g = lane / 4;
        low = load16(tile + q * 512 + lane * 16);
        const uint2 both = load8(tile + Q6_K::two_at(4) + q / 2 * 512 + lane * 16 + q % 2 * 8);
        two[0] = both.x, two[1] = both.y;
#pragma unroll
        for (int r = 0; r < 2; r++) scale[r] = *(const u32*)(tile + Q6_K::scales_at(4) + g * 32 + r * 16 + q * 4);
    }

    // Of 16 columns, `code · (scale / 16)` and `code · (scale % 16)`.
    __device__ __forceinline__ void unpack(int b, int half, u32 (&high)[4], u32 (&low_)[4]) const {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            u32 dup = __byte_perm(scale[r], 0, (2 * b + half) * 0x1111);
            // Signed: the upper four bits are 8 too large once their highest is turned over.
            u32 up = and_xor<0x000f000f, 0x64086408>(dup >> 4), down = and_or<0x000f000f, 0x64006400>(dup);
            __half2 fu = __hsub2(halves_of(up), __floats2half2_rn(1032.f, 1032.f));
            __half2 fd = __hsub2(halves_of(down), __floats2half2_rn(1024.f, 1024.f));
            __half2 lu = __hmul2(fu, __floats2half2_rn(-96.f, -96.f)), ld = __hmul2(fd, __floats2half2_rn(-96.f, -96.f));
            const int i = 2 * half + r;
            u32 w = Planes<Q6_K>::word(low, i), h = two[b];
            // Six bits in the upper ones of a mantissa: 64 + code + 32, the code's sign turned over.
            u32 even = and_xor<0x00f000f0, 0x56005600>(b ? w : w << 4);
            u32 odd = and_xor<0x00f000f0, 0x56005600>(b ? w >> 8 : w >> 4);
            even ^= (h << (8 - 2 * i)) & 0x03000300, odd ^= (h >> (2 * i)) & 0x03000300;
            high[r] = bits_of(__hfma2(halves_of(even), fu, lu)), high[2 + r] = bits_of(__hfma2(halves_of(odd), fu, lu));
            low_[r] = bits_of(__hfma2(halves_of(even), fd, ld)), low_[2 + r] = bits_of(__hfma2(halves_of(odd), fd, ld));
        }
    }
};

// One lane's weights of a quarter of a type with a factor for 32 weights.
template <class F>
struct Weights32 {
    Planes<F> planes;
    // Of both blocks, for the outputs `g` and `g + 8`.
    float factor[2][2];

    __device__ __forceinline__ void load(const u8* tile, int q, int quarters) {
        static_assert(F::scales == BLOCK && !F::min && two_bits(F::codes) == 0 && one_bit(F::codes) == 0, "planes of whole quarters");
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < Planes<F>::LOW; i++)
            planes.low[i] = load16(tile + q * low_plane(F::codes) + i * 512 + lane * 16);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const u32 word = *(const u32*)(tile + F::scales_at(quarters) + lane / 4 * 32 + r * 16 + q * 4);
#pragma unroll
            for (int b = 0; b < 2; b++)
                factor[b][r] = (F::powers ? __uint_as_float(word >> (16 * b) << 16) : half_bits(word >> (16 * b))) * F::unit;
        }
    }

    // The codes of block `b`: the left operands of two products.
    __device__ __forceinline__ void unpack(int b, u32 (&a)[2][4]) const {
        u32 codes[4];
        planes.unpack(0, b, codes);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 from128 = codes[i] ^ 0x80808080;
            a[i / 2][i % 2] = bits_of(bytes_as_halves(from128, 0x4240, 1152.f));
            a[i / 2][2 + i % 2] = bits_of(bytes_as_halves(from128, 0x4341, 1152.f));
        }
    }
};
