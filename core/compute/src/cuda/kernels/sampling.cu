// The likeliest tokens of every row, so that the host need not read all logits to choose one.

#include "common.cuh"

constexpr int THREADS = 1024;
// Candidates that are sorted at once.
constexpr int MOST = 1024;

// Larger for larger numbers, 0 for what can't be chosen: minus infinity and NaN.
__device__ __forceinline__ u32 key_of(float x) {
    if (!(x > -INFINITY)) return 0;
    u32 bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(u32 key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Of equal numbers the first is the larger one.
__device__ __forceinline__ u64 rank_of(float x, int at) { return (u64)key_of(x) << 32 | (u32)~at; }

// Sorts `MOST` numbers, the largest first, by all threads (Batcher, 1968: a bitonic network).
__device__ __forceinline__ void sort(u64* list) {
    for (int size = 2; size <= MOST; size *= 2)
        for (int far = size / 2; far > 0; far /= 2) {
            int i = threadIdx.x, j = i ^ far;
            if (j > i) {
                u64 a = list[i], b = list[j];
                if (i & size ? a > b : a < b) list[i] = b, list[j] = a;
            }
            __syncthreads();
        }
}

// Calls `each` with a thread's share of a row: a warp has consecutive numbers, so that no thread has all of those that a row
// repeats at regular distances.
template <class Each>
__device__ __forceinline__ void for_mine(const float* row, int columns, Each each) {
    const int share = (columns + THREADS - 1) / THREADS * 32, first = threadIdx.x / 32 * share;
    const int end = min(first + share, columns);
#pragma unroll 8
    for (int i = first + threadIdx.x % 32; i < end; i += 32) each(rank_of(row[i], i));
}

// How many of a row are at least `floor`, told to all threads.
__device__ __forceinline__ int at_least(const float* row, int columns, u64 floor, int* count) {
    __syncthreads();
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    int mine = 0;
    for_mine(row, columns, [&](u64 rank) { mine += rank >> 32 && rank >= floor; });
    mine = __reduce_add_sync(~0u, mine);
    if (threadIdx.x % 32 == 0) atomicAdd(count, mine);
    __syncthreads();
    return *count;
}

// The `want`th largest rank of a row, byte by byte from the highest on; 0 if there are fewer. For rows with many equal numbers.
__device__ __forceinline__ u64 exactly(const float* row, int columns, int want, int* bins, u64* told) {
    u64 floor = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        // Columns are counted down from the largest 32-bit number, so their high bytes are alike.
        if (shift < 32 && shift > 0 && (columns - 1) >> shift == 0) {
            floor |= (u64)255 << shift;
            continue;
        }
        __syncthreads();
        if (threadIdx.x < 256) bins[threadIdx.x] = 0;
        __syncthreads();
        for_mine(row, columns, [&](u64 rank) {
            if (!(rank >> 32) || (shift < 56 && rank >> (shift + 8) != floor >> (shift + 8))) return;
            int digit = (int)(rank >> shift) & 255;
            // One addition for all threads of a warp that have the same byte.
            u32 same = __match_any_sync(__activemask(), digit);
            if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(&bins[digit], __popc(same));
        });
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = 255, above = 0;
            while (digit > 0 && above + bins[digit] < want) above += bins[digit--];
            *told = floor | (u64)digit << shift;
            bins[0] = want - above;
        }
        __syncthreads();
        floor = *told, want = bins[0];
    }
    return floor;
}

// The `want` (at most 1024) largest numbers of a row, largest first and of equal ones the first, then where they are; a block
// for each row. Places that are left over hold minus infinity. `out` is `[rows, 2 * want]`.
extern "C" __global__ void __launch_bounds__(THREADS) best(const float* x, int columns, int want, float* out) {
    __shared__ u64 list[MOST];
    __shared__ int count, bins[256];
    __shared__ u64 told;
    wait_for_previous();
    let_next_start();
    const float* row = x + (u64)blockIdx.x * columns;
    // The largest number of each thread: as many as are wanted reach the `want`th largest of those.
    u64 largest = 0;
    for_mine(row, columns, [&](u64 rank) { largest = max(largest, rank); });
    list[threadIdx.x] = largest;
    __syncthreads();
    sort(list);
    u64 floor = list[want - 1] >> 32 << 32;
    if (at_least(row, columns, floor, &count) > MOST) floor = exactly(row, columns, want, bins, &told);
    __syncthreads();
    list[threadIdx.x] = 0;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for_mine(row, columns, [&](u64 rank) {
        if (rank >> 32 && rank >= floor) {
            int at = atomicAdd(&count, 1);
            if (at < MOST) list[at] = rank;
        }
    });
    __syncthreads();
    sort(list);
    if (threadIdx.x < want) {
        u64 rank = list[threadIdx.x];
        float* to = out + (u64)blockIdx.x * 2 * want;
        to[threadIdx.x] = rank >> 32 ? value_of((u32)(rank >> 32)) : -INFINITY;
        to[want + threadIdx.x] = __uint_as_float(~(u32)rank);
    }
}
