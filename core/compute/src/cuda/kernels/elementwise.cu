// Norms, gates, rotations and copies. Where a product reads the result next, its forms (see `activations.cuh`) are made
// in the same pass.

#include "activations.cuh"

__device__ __forceinline__ float silu(float x) { return x / (1.f + expf(-x)); }
__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// One chunk of a row for each lane group; see `activations.cuh`.
__device__ __forceinline__ int first_chunk() { return threadIdx.x / 32; }
__device__ __forceinline__ int column_of(int chunk) { return chunk * CHUNK + threadIdx.x % 32 * 8; }

__device__ __forceinline__ float squares(const float (&v)[8], float sum) {
#pragma unroll
    for (int i = 0; i < 8; i++) sum = fmaf(v[i], v[i], sum);
    return sum;
}

// The factor of an RMS norm over a row, by a whole block. `mine` is this warp's first chunk.
__device__ __forceinline__ float rms_factor(const float* x, const float (&mine)[8], int columns, float eps, float* space) {
    float sum = squares(mine, 0.f);
    for (int chunk = first_chunk() + blockDim.x / 32; chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        float v[8];
        load_row8(x, column_of(chunk), columns, v);
        sum = squares(v, sum);
    }
    return rsqrtf(block_sum(sum, space) / columns + eps);
}

// out = x / sqrt(mean(x²) + eps) * weight, a block for each row.
extern "C" __global__ void rms_norm(const float* x, const float* weight, float eps, int columns, float* out, Forms forms) {
    __shared__ float space[32];
    float v[8], w[8];
    load_row8(weight, column_of(first_chunk()), columns, w);
    wait_for_previous();
    let_next_start();
    x += (u64)blockIdx.x * columns, out += (u64)blockIdx.x * columns;
    load_row8(x, column_of(first_chunk()), columns, v);
    float factor = rms_factor(x, v, columns, eps, space);
    for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        if (chunk != first_chunk()) {
            load_row8(x, column_of(chunk), columns, v);
            load_row8(weight, column_of(chunk), columns, w);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = v[i] * factor * w[i];
        store_row8(out, column_of(chunk), columns, v);
        put_forms(forms, blockIdx.x, chunk, v);
    }
}

// x += rms_norm(delta) * weight, a block for each row.
extern "C" __global__ void add_rms_norm(float* x, const float* delta, const float* weight, float eps, int columns) {
    __shared__ float space[32];
    wait_for_previous();
    let_next_start();
    x += (u64)blockIdx.x * columns, delta += (u64)blockIdx.x * columns;
    float d[8];
    load_row8(delta, column_of(first_chunk()), columns, d);
    float factor = rms_factor(delta, d, columns, eps, space);
    for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        float v[8], w[8];
        load_row8(x, column_of(chunk), columns, v);
        load_row8(weight, column_of(chunk), columns, w);
        if (chunk != first_chunk()) load_row8(delta, column_of(chunk), columns, d);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += d[i] * factor * w[i];
        store_row8(x, column_of(chunk), columns, v);
    }
}

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

// For each row and frequency magnitude * (cos, sin)(position * frequency): y is the row.
extern "C" __global__ void rotations(const float* frequencies, int count, float magnitude, const u32* positions,
                                     float* out) {
    wait_for_previous();
    let_next_start();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    // In double precision: at position 100,000 a float's angle would be off by 0.004 radians.
    double sin, cos;
    sincos((double)positions[blockIdx.y] * (double)frequencies[i], &sin, &cos);
    float* pair = out + ((u64)blockIdx.y * count + i) * 2;
    pair[0] = (float)cos * magnitude, pair[1] = (float)sin * magnitude;
}

enum Kind { HALVES, FLOATS, CODES };

struct RopeStore {
    float* q;
    float* k;
    const float* v;
    const float* q_norm;
    const float* k_norm;
    const float* rotations;
    // The layer's pages; see `cache.cuh`.
    void* keys;
    void* values;
    const u32* positions;
    // Where a row's page table starts in `pages`.
    const u32* tables;
    const u32* pages;
    float eps;
    int heads;
    int kv_heads;
    int dim;
    // `dim` as the cache holds it.
    int padded;
    // Numbers of a head that are rotated, and whether pairs lie side by side.
    int rotated;
    int interleaved;
    // What the cache holds: half floats, single-precision floats, or codes, which `store_codes` writes.
    int kind;
};

// A warp for each head of each row: query heads, then key heads, then value heads; y is the row.
extern "C" __global__ void rope_store(const __grid_constant__ RopeStore p) {
    constexpr int MOST = 8;  // numbers of a head on one lane
    wait_for_previous();
    let_next_start();
    int head = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.y;
    if (head >= p.heads + 2 * p.kv_heads) return;
    bool query = head < p.heads, value = head >= p.heads + p.kv_heads;
    int kv = value ? head - p.heads - p.kv_heads : head - p.heads;
    const float* source = query ? p.q + ((u64)row * p.heads + head) * p.dim
                                : (value ? p.v : p.k) + ((u64)row * p.kv_heads + kv) * p.dim;
    float x[MOST];
    // Number `i` of a lane: pairs of neighbours for interleaved pairs, else every 32nd.
    auto place = [&](int i) { return p.interleaved ? i / 2 * 64 + lane * 2 + i % 2 : i * 32 + lane; };
    if (value) {
#pragma unroll
        for (int i = 0; i < MOST; i++) x[i] = place(i) < p.dim ? source[place(i)] : 0.f;
    } else {
        const float* norm = query ? p.q_norm : p.k_norm;
        float factor = 1.f;
        if (norm) {
            float sum = 0.f;
#pragma unroll
            for (int i = 0; i < MOST; i++)
                if (place(i) < p.dim) sum = fmaf(source[place(i)], source[place(i)], sum);
            factor = rsqrtf(warp_sum(sum) / p.dim + p.eps);
        }
        auto at = [&](int j) { return norm ? source[j] * factor * norm[j] : source[j]; };
        const float* rotation = p.rotations + (u64)row * p.rotated;
        int half = p.rotated / 2;
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            int j = place(i);
            x[i] = 0.f;
            if (j >= p.dim) continue;
            if (j >= p.rotated) {
                x[i] = at(j);
                continue;
            }
            bool second = p.interleaved ? j % 2 : j >= half;
            int pair = p.interleaved ? j / 2 : second ? j - half : j;
            int partner = p.interleaved ? j ^ 1 : second ? j - half : j + half;
            float cos = rotation[2 * pair], sin = rotation[2 * pair + 1];
            x[i] = second ? fmaf(at(partner), sin, at(j) * cos) : fmaf(-at(partner), sin, at(j) * cos);
        }
        // Every lane has read what it needs of the head before any writes.
        __syncwarp();
        float* out = query ? p.q + ((u64)row * p.heads + head) * p.dim : p.k + ((u64)row * p.kv_heads + kv) * p.dim;
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (place(i) < p.dim) out[place(i)] = x[i];
        if (query) return;
    }
    if (p.kind == CODES) return;
    u32 position = p.positions[row], page = p.pages[p.tables[row] + position / PAGE], slot = position % PAGE;
    u64 block = ((u64)page * p.kv_heads + kv) * PAGE * p.padded;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        int j = place(i);
        if (j >= p.padded) continue;
        // Two tokens' values stand side by side.
        u64 at = block + (value ? (u64)(slot / 2) * p.padded * 2 + j * 2 + slot % 2 : (u64)slot * p.padded + j);
        if (p.kind == FLOATS) ((float*)(value ? p.values : p.keys))[at] = x[i];
        // Never infinite, nor NaN: masked tokens are multiplied with 0.
        else ((__half*)(value ? p.values : p.keys))[at] = __float2half_rn(fminf(fmaxf(x[i], -65504.f), 65504.f));
    }
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
