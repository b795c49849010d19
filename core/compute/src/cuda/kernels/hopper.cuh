// Hopper's own instructions: products by a group of four warps (`wgmma`), copies by the copy engine, and the barriers that
// both report to. Elsewhere nothing of this is compiled.
#pragma once

#include "common.cuh"

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ void barrier_init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Makes initialized barriers known to the copy engine.
__device__ __forceinline__ void barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and has the phase last until so many bytes have been copied.
__device__ __forceinline__ void arrive_expecting(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits for the end of the phase of this parity.
__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Copies a multiple of 16 bytes to shared memory and counts them at the barrier.
__device__ __forceinline__ void bulk_copy(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

// Registers that were written are seen by the products that follow.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but so many of the groups that were committed have ended.
template <int LEFT>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// Rows of 64 halves in shared memory, 128 bytes each, whose 16-byte units are exchanged: unit `u` of row `r` is at
// `u ^ r % 8`. Rows begin at a multiple of 1024.
__device__ __forceinline__ u64 row_operand(u32 at) {
    return (u64)((at & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// The same rows from a later column on, a multiple of 16.
__device__ __forceinline__ u64 columns_on(u64 operand, int columns) { return operand + columns * 2 / 16; }

// Rows of 16 halves, 32 bytes each, eight rows at a time: their first 16 bytes, then their last.
__device__ __forceinline__ u64 sum_operand(u32 at) {
    return (u64)((at & 0x3ffff) >> 4) | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
}

// What the copying warps need not, the others have: registers a thread, for all four warps of a group.
template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// d (+)= a · b for 64 outputs, ROWS rows and 16 columns; four warps have 16 outputs each. `add` false: d is set.
template <int ROWS>
__device__ __forceinline__ void group_product(float (&d)[ROWS / 2], const u32 (&a)[4], u64 b, int add);

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define GROUP_PRODUCT(ROWS, REGISTERS, A0, A1, A2, A3, B, ADD, ...)                                                  \
    template <>                                                                                                      \
    __device__ __forceinline__ void group_product<ROWS>(float (&d)[ROWS / 2], const u32(&a)[4], u64 b, int add) {    \
        asm volatile(                                                                                                \
            "{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\n"                                                     \
            "wgmma.mma_async.sync.aligned.m64n" #ROWS "k16.f32.f16.f16 {" REGISTERS "}, {" A0 "," A1 "," A2 "," A3     \
            "}, " B ", add, 1, 1, 0;\n}\n"                                                                           \
            : __VA_ARGS__                                                                                              \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                                         \
    }
#define R8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define R16 R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define R32 R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R64                                                                                                          \
    R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58," \
        "%59,%60,%61,%62,%63"
GROUP_PRODUCT(16, R8, "%8", "%9", "%10", "%11", "%12", "%13", D4(0), D4(4))
GROUP_PRODUCT(32, R16, "%16", "%17", "%18", "%19", "%20", "%21", D16(0))
GROUP_PRODUCT(64, R32, "%32", "%33", "%34", "%35", "%36", "%37", D16(0), D16(16))
GROUP_PRODUCT(128, R64, "%64", "%65", "%66", "%67", "%68", "%69", D16(0), D16(16), D16(32), D16(48))

#endif
