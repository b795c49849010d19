// Adapters of experts: what they add to the products of a row with its own experts, b · (a · x).
//
// As for the products themselves, the host does not know which experts a row chose: the numbers of an adapter's pair of matrices are
// read from the table.

#include "experts.cuh"
#include "gates.cuh"

struct Adapted {
    // [experts, rank, inputs]
    const float* a;
    // [experts, outputs, rank]
    const float* b;
    // For each row of the adapter its number and the bits of its factor.
    const u32* rows;
    // By pair.
    const int* chosen;
    const int* place_of;
    // What products are multiplied with, by pair; null for 1.
    const float* weights;
    // A row of the batch for each row, or a row for each place.
    const float* x;
    // [rows, used, rank]
    float* hidden;
    // A row for each place.
    float* out;
    int rank;
    int inputs;
    int outputs;
    int used;
    int by_place;

    // The pair of the adapter's row and expert that the block has.
    __device__ __forceinline__ int pair() const { return (int)rows[2 * (blockIdx.y / used)] * used + blockIdx.y % used; }
};

// First half: hidden[i] = a · x of pair i. A warp for each number: y is i.
extern "C" __global__ void experts_lora_inner(const __grid_constant__ Adapted p) {
    wait_for_previous();
    let_next_start();
    const int at = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (at >= p.rank) return;
    const int pair = p.pair();
    const float* x = p.x + (u64)(p.by_place ? p.place_of[pair] : pair / p.used) * p.inputs;
    const float* a = p.a + ((u64)p.chosen[pair] * p.rank + at) * p.inputs;
    float sum = 0.f;
    for (int k = threadIdx.x % 32; k < p.inputs; k += 32) sum = __fmaf_rn(a[k], x[k], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) p.hidden[(u64)blockIdx.y * p.rank + at] = sum;
}

// Second half: out += factor · b · hidden[i]. A thread for each output: y is i.
extern "C" __global__ void experts_lora_outer(const __grid_constant__ Adapted p) {
    wait_for_previous();
    let_next_start();
    const int output = blockIdx.x * blockDim.x + threadIdx.x;
    if (output >= p.outputs) return;
    const int pair = p.pair();
    const float* hidden = p.hidden + (u64)blockIdx.y * p.rank;
    const float* b = p.b + ((u64)p.chosen[pair] * p.outputs + output) * p.rank;
    float sum = 0.f;
    for (int i = 0; i < p.rank; i++) sum = __fmaf_rn(b[i], hidden[i], sum);
    if (p.weights) sum = __fmul_rn(p.weights[pair], sum);
    float* o = p.out + (u64)p.place_of[pair] * p.outputs + output;
    *o = __fmaf_rn(__uint_as_float(p.rows[2 * (blockIdx.y / p.used) + 1]), sum, *o);
}

// x = activation(x) · up, or without `up` the activation of x.
extern "C" __global__ void activate_adapted(float* x, const float* up, u64 len, int kind, float alpha, float limit) {
    wait_for_previous();
    let_next_start();
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) x[i] = activate(kind, x[i], up ? up[i] : 1.f, alpha, limit);
}
