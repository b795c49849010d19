// Activations, sums and copies. Where a product reads the result next, its forms (see `activations.cuh`) are made in the same
// pass.

#include "activations.cuh"
#include "gates.cuh"

// The forms of given rows: a warp for a chunk, y is the row.
extern "C" __global__ void quantize(const float* x, int columns, Forms forms) {
    wait_for_previous();
    let_next_start();
    int chunk = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (chunk * CHUNK >= columns) return;
    float v[8];
    load_row8(x + (u64)blockIdx.y * columns, chunk * CHUNK + threadIdx.x % 32 * 8, columns, v);
    put_forms(forms, blockIdx.y, chunk, v);
}

// gate = activation(gate) * up: a warp for a chunk, y is the row.
extern "C" __global__ void gated(float* gate, const float* up, int columns, int gelu, Forms forms) {
    wait_for_previous();
    let_next_start();
    int chunk = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (chunk * CHUNK >= columns) return;
    int column = chunk * CHUNK + threadIdx.x % 32 * 8;
    gate += (u64)blockIdx.y * columns, up += (u64)blockIdx.y * columns;
    float v[8], u[8];
    load_row8(gate, column, columns, v);
    load_row8(up, column, columns, u);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = (gelu ? gelu_tanh(v[i]) : silu(v[i])) * u[i];
    store_row8(gate, column, columns, v);
    put_forms(forms, blockIdx.y, chunk, v);
}

// The same for every activation, without a gate where `up` is null. The two common gates have a kernel that does not choose
// anew for every number.
extern "C" __global__ void activation(float* gate, const float* up, int columns, int kind, float alpha, float limit, Forms forms) {
    wait_for_previous();
    let_next_start();
    int chunk = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (chunk * CHUNK >= columns) return;
    int column = chunk * CHUNK + threadIdx.x % 32 * 8;
    gate += (u64)blockIdx.y * columns;
    float v[8], u[8] = {1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f};
    load_row8(gate, column, columns, v);
    if (up) load_row8(up + (u64)blockIdx.y * columns, column, columns, u);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = column + i < columns ? activate(kind, v[i], u[i], alpha, limit) : 0.f;
    store_row8(gate, column, columns, v);
    put_forms(forms, blockIdx.y, chunk, v);
}

// x += scale * delta.
extern "C" __global__ void add(float* x, const float* delta, u64 len, float scale) {
    wait_for_previous();
    let_next_start();
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) x[i] = fmaf(scale, delta[i], x[i]);
}

// x *= factor.
extern "C" __global__ void scale(float* x, u64 len, float factor) {
    wait_for_previous();
    let_next_start();
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) x[i] *= factor;
}

// x[row] *= sigmoid(gate[row]): y is the row.
extern "C" __global__ void scale_rows(const float* gate, float* x, int columns) {
    wait_for_previous();
    let_next_start();
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < columns) x[(u64)blockIdx.y * columns + column] *= sigmoid(gate[blockIdx.y]);
}

struct CopyColumns {
    const float* x;
    float* out;
    // Of rows.
    int columns;
    int out_columns;
    // See `Columns`.
    int count;
    int width;
    int from;
    int from_step;
    int to;
    int to_step;
};

// Pieces of rows: y is the row.
extern "C" __global__ void copy_columns(const __grid_constant__ CopyColumns p) {
    wait_for_previous();
    let_next_start();
    int i = blockIdx.x * blockDim.x + threadIdx.x, piece = i / p.width, at = i % p.width;
    if (piece >= p.count) return;
    p.out[(u64)blockIdx.y * p.out_columns + p.to + piece * p.to_step + at] =
        p.x[(u64)blockIdx.y * p.columns + p.from + piece * p.from_step + at];
}

// out[i] = x[rows[i]]: y is i.
extern "C" __global__ void gather(const float* x, const u32* rows, int columns, float* out) {
    wait_for_previous();
    let_next_start();
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < columns) out[(u64)blockIdx.y * columns + column] = x[(u64)rows[blockIdx.y] * columns + column];
}

// x = cap * tanh(x / cap).
extern "C" __global__ void soft_cap(float* x, u64 len, float cap) {
    wait_for_previous();
    let_next_start();
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) x[i] = cap * tanhf(x[i] / cap);
}

// What an adapter adds to a product, first half: hidden[i] = a · x[rows[i]], `[rows, rank]`. A warp for each number: x is the
// rank, y is i. `rows` holds a row's number and its factor.
extern "C" __global__ void lora_inner(const float* a, const float* x, const u32* rows, int rank, int inputs, float* hidden) {
    wait_for_previous();
    let_next_start();
    int at = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (at >= rank) return;
    x += (u64)rows[2 * blockIdx.y] * inputs, a += (u64)at * inputs;
    float sum = 0.f;
    for (int k = threadIdx.x % 32; k < inputs; k += 32) sum = __fmaf_rn(a[k], x[k], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) hidden[(u64)blockIdx.y * rank + at] = sum;
}

// Second half: out[rows[i]] += factor · b · hidden[i]. A thread for each output: y is i.
extern "C" __global__ void lora_outer(const float* b, const float* hidden, const u32* rows, int rank, int outputs, float* out) {
    wait_for_previous();
    let_next_start();
    int output = blockIdx.x * blockDim.x + threadIdx.x;
    if (output >= outputs) return;
    hidden += (u64)blockIdx.y * rank, b += (u64)output * rank;
    float sum = 0.f;
    for (int i = 0; i < rank; i++) sum = __fmaf_rn(b[i], hidden[i], sum);
    float* o = out + (u64)rows[2 * blockIdx.y] * outputs + output;
    *o = __fmaf_rn(__uint_as_float(rows[2 * blockIdx.y + 1]), sum, *o);
}
