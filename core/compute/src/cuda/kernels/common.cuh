// What every kernel file shares: sizes, tensor-core instructions, reductions in a fixed order.
#pragma once

#include <cuda_fp16.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// Outputs of a tile, columns of a chunk, columns that one 16-byte load of 4-bit codes covers.
constexpr int TILE = 16;
constexpr int CHUNK = 256;
constexpr int QUARTER = 64;
// Tokens of a page of the KV cache.
constexpr int PAGE = 32;

// Waits until the kernels before this one in the stream have finished, where the launch let it start early.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel start its preparations.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// d += a · b, 16 × 8 × 32 signed bytes. Exact.
__device__ __forceinline__ void mma_s8_k32(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d += a · b, 16 × 8 × 16 signed bytes. Exact.
__device__ __forceinline__ void mma_s8_k16(int (&d)[4], u32 a0, u32 a1, u32 b0) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

// d += a · b, 16 × 8 × 16 half floats, added up in single precision.
__device__ __forceinline__ void mma_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) x += __shfl_xor_sync(~0u, x, far);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, far));
    return x;
}

// The sum over a block of whole warps, the same on every thread. `space` holds 32 numbers, for one sum.
__device__ __forceinline__ float block_sum(float x, float* space) {
    int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) space[warp] = x;
    __syncthreads();
    x = threadIdx.x % 32 < warps ? space[threadIdx.x % 32] : 0.f;
    return warp_sum(x);
}

// What other kernels have written. Not through the read-only path: the kernel that writes may still run when this one starts.
__device__ __forceinline__ uint4 load16(const void* p) { return *reinterpret_cast<const uint4*>(p); }
__device__ __forceinline__ uint2 load8(const void* p) { return *reinterpret_cast<const uint2*>(p); }

// What never changes: weights.
__device__ __forceinline__ uint4 constant16(const void* p) { return __ldg(reinterpret_cast<const uint4*>(p)); }
__device__ __forceinline__ uint2 constant8(const void* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }
__device__ __forceinline__ u32 constant4(const void* p) { return __ldg(reinterpret_cast<const u32*>(p)); }

// Weights are read once: they need not push anything out of the first-level cache.
__device__ __forceinline__ uint4 stream16(const void* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

__device__ __forceinline__ float half_bits(u32 bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }

__device__ __forceinline__ u32 pack_halves(float low, float high) {
    __half2 h = __floats2half2_rn(low, high);
    return *reinterpret_cast<u32*>(&h);
}
