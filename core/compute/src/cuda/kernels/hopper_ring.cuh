// Shared memory as rings of pieces, which a copying thread fills and groups of warps read (see `hopper_gemm.cuh`).
#pragma once

#include "format.cuh"
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Where things are in shared memory. Half floats: a ring of quarters, rows first (swizzled rows begin at a multiple of 1024), then
// weights, then the rows' factors. Codes: a ring of chunks of weights and what belongs to a row's chunk, and one of quarters of
// rows, with their factors where each 32 columns have one, which are free again sooner.
template <class F, int WGS, int ROWS>
struct Layout {
    static constexpr bool HALVES = F::codes == HALF;
    static constexpr int ATOM = ROWS * 128;
    static constexpr int GROUP = TOGETHER * (HALVES ? F::bytes(1) : F::bytes(4));
    static constexpr int WEIGHTS = HALVES ? ATOM : 0;
    // Of each row the sums of 16 codes, where they are needed, and a factor.
    static constexpr int SUMS = WEIGHTS + WGS * GROUP;
    static constexpr int SUM_BYTES = F::min ? 32 : 0;
    static constexpr int FACTORS = SUMS + ROWS * SUM_BYTES;
    static constexpr int BYTES = (FACTORS + (F::by32 ? 0 : ROWS * 4) + 1023) / 1024 * 1024;
    static constexpr int ROW_BYTES = (ATOM + (F::by32 ? ROWS * 8 : 0) + 1023) / 1024 * 1024;
};

// A ring of pieces of shared memory: where the copying thread is, or a group.
template <int STAGES, int BYTES>
struct Ring {
    u32 data, full, empty;
    int slot = 0;
    u32 parity = 0;

    __device__ __forceinline__ Ring(u32 data, u64* full, u64* empty)
        : data(data), full(shared_address(full)), empty(shared_address(empty)) {}

    __device__ __forceinline__ void init(int readers) const {
        for (int i = 0; i < STAGES; i++) barrier_init(full + 8 * i, 1), barrier_init(empty + 8 * i, readers);
    }
    __device__ __forceinline__ void next() {
        if (++slot == STAGES) slot = 0, parity ^= 1;
    }
    __device__ __forceinline__ u32 at() const { return data + slot * BYTES; }
    __device__ __forceinline__ u32 filled() const { return full + 8 * slot; }
    // The copying thread: until the piece may be written. In the first round it may.
    __device__ __forceinline__ void wait_empty() const { wait(empty + 8 * slot, parity ^ 1); }
    __device__ __forceinline__ void wait_full() const { wait(full + 8 * slot, parity); }
};

// A ring as a group reads it. What it has read it gives back later, when its products have ended: what threads read, too, each
// thread by itself, as that is the order that `racecheck` follows; what only tensor cores read, warp by warp.
template <class R, bool BY_THREADS>
struct Reader : R {
    // How many of a group give a piece back.
    static constexpr int OF_GROUP = BY_THREADS ? 128 : 4;
    int before = 0;

    __device__ __forceinline__ Reader(const R& ring) : R(ring) {}
    __device__ __forceinline__ void next() {
        before = R::slot;
        R::next();
    }
    __device__ __forceinline__ void done_before() const {
        if (BY_THREADS || threadIdx.x % 32 == 0) arrive(R::empty + 8 * before);
    }
};
#endif
