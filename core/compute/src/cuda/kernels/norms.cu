// Norms of rows. Where a product reads the result next, its forms (see `activations.cuh`) are made in the same pass.

#include "rms.cuh"

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

// The mean of a row, 0 for an RMS norm, and the factor that follows.
struct Statistics {
    float mean, factor;
};

// Those of a row by a whole block, for norms of any kind. `mine` is this warp's first chunk; `space` holds 64 numbers.
__device__ __forceinline__ Statistics statistics(const float* x, const float (&mine)[8], int columns, int layer, float eps,
                                                 float* space) {
    float mean = 0.f, v[8];
    auto load = [&](int chunk) {
        if (chunk != first_chunk()) return load_row8(x, column_of(chunk), columns, v);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = mine[i];
    };
    if (layer) {
        float sum = 0.f;
        for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
            load(chunk);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += v[i];
        }
        mean = block_sum(sum, space) / columns;
    }
    float sum = 0.f;
    for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        load(chunk);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (column_of(chunk) + i < columns) sum = fmaf(v[i] - mean, v[i] - mean, sum);
    }
    return {mean, rsqrtf(block_sum(sum, space + 32) / columns + eps)};
}

// v = (v - mean) * factor * weight + bias, 8 columns of a row. Weight and bias may be null.
__device__ __forceinline__ void normalize(float (&v)[8], const Statistics& by, const float* weight, const float* bias, int column,
                                          int columns) {
    float w[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = (v[i] - by.mean) * by.factor;
    if (weight) {
        load_row8(weight, column, columns, w);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] *= w[i];
    }
    if (bias) {
        load_row8(bias, column, columns, w);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += w[i];
    }
}

// A norm of any kind, a block for each row. `out` may be `x`.
extern "C" __global__ void any_norm(const float* x, const float* weight, const float* bias, int layer, float eps, int columns,
                                    float* out, Forms forms) {
    __shared__ float space[64];
    wait_for_previous();
    let_next_start();
    x += (u64)blockIdx.x * columns, out += (u64)blockIdx.x * columns;
    float v[8];
    load_row8(x, column_of(first_chunk()), columns, v);
    const Statistics by = statistics(x, v, columns, layer, eps, space);
    for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        const int column = column_of(chunk);
        if (chunk != first_chunk()) load_row8(x, column, columns, v);
        normalize(v, by, weight, bias, column, columns);
        // Forms have zeros past the end of a row.
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (column + i >= columns) v[i] = 0.f;
        store_row8(out, column, columns, v);
        put_forms(forms, blockIdx.x, chunk, v);
    }
}

// x += norm(delta) for a norm of any kind, a block for each row.
extern "C" __global__ void add_any_norm(float* x, const float* delta, const float* weight, const float* bias, int layer,
                                        float eps, int columns) {
    __shared__ float space[64];
    wait_for_previous();
    let_next_start();
    x += (u64)blockIdx.x * columns, delta += (u64)blockIdx.x * columns;
    float d[8];
    load_row8(delta, column_of(first_chunk()), columns, d);
    const Statistics by = statistics(delta, d, columns, layer, eps, space);
    for (int chunk = first_chunk(); chunk * CHUNK < columns; chunk += blockDim.x / 32) {
        const int column = column_of(chunk);
        float v[8];
        load_row8(x, column, columns, v);
        if (chunk != first_chunk()) load_row8(delta, column, columns, d);
        normalize(d, by, weight, bias, column, columns);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += d[i];
        store_row8(x, column, columns, v);
    }
}
