// Products for few rows: decoding. What is read from memory is the weights, and little else.
//
// A block works on 16 · MT outputs and up to 8 · NT rows at a time. Its warps take the chunks in turns and leave their
// sums in shared memory; then each pair of an output and a row is added up in the order of the chunks (see `chunk.cuh`). There
// are as many blocks as fit on the GPU at once, and each goes on to its next outputs without a pause: their weights are on
// the way before the sums of the last are added up. Nor do weights depend on the kernels before this one, so the first
// are on their way before those have finished.

#include "jobs.cuh"

// The outputs of one matrix that are this block's: block number `block` of them, and every `job.step`-th after it.
template <class F, int MT, int NT>
__device__ __forceinline__ void job_product(const Products& p, const Job& job, int block, int blocks) {
    // Two buffers of `p.round` chunks, which take turns: one is added up while the other fills.
    extern __shared__ float partial[];
    // Rows of outputs, padded so that a warp's stores hit all banks.
    constexpr int STRIDE = TILE * MT + 4, ROWS = 8 * NT, SIZE = ROWS * STRIDE;
    constexpr int COUNT = (TILE * MT * ROWS + 32 * WARPS - 1) / (32 * WARPS);
    constexpr bool AHEAD = MT * NT <= 2 && F::codes != HALF && F::codes != I8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tiles = (job.outputs + TILE - 1) / TILE;
    const int chunks = p.x.chunks, first_row = blockIdx.y * ROWS;

    Planes<F> planes[MT], ahead[MT];
    TileScales<F> scales[MT], scales_ahead[MT];
    if (warp < chunks) load_tiles<F, MT>(job, block * MT, tiles, warp, quarters_of(p.x, warp), planes, scales);
    wait_for_previous();
    let_next_start();

    int buffer = 0;
    for (; block < blocks; block += job.step) {
        float total[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) total[i] = 0.f;
        for (int first = 0; first < chunks; first += p.round) {
            int last = min(first + p.round, chunks);
            float* sums = partial + buffer * p.round * SIZE;
            buffer ^= 1;
            for (int chunk = first + warp; chunk < last; chunk += WARPS) {
                bool same = chunk + WARPS < chunks;
                int next_block = same ? block : block + job.step, next = same ? chunk + WARPS : warp;
                if constexpr (AHEAD) {
                    if (next_block < blocks)
                        load_tiles<F, MT>(job, next_block * MT, tiles, next, quarters_of(p.x, next), ahead, scales_ahead);
                }
                float sum[MT][NT][4];
                InMemory<NT> x(p.x, first_row, p.rows, chunk);
                chunk_product<F, MT, NT>(planes, scales, x, quarters_of(p.x, chunk), sum);
                float* out = sums + (chunk - first) * SIZE;
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int n = 0; n < NT; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            out[(8 * n + 2 * t + i % 2) * STRIDE + TILE * m + g + i / 2 * 8] = sum[m][n][i];
                if constexpr (AHEAD) {
#pragma unroll
                    for (int m = 0; m < MT; m++) planes[m] = ahead[m], scales[m] = scales_ahead[m];
                } else {
                    if (next_block < blocks)
                        load_tiles<F, MT>(job, next_block * MT, tiles, next, quarters_of(p.x, next), planes, scales);
                }
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                int at = threadIdx.x + i * 32 * WARPS, output = at % (TILE * MT), row = at / (TILE * MT);
                if (row < ROWS && first_row + row < p.rows) {
                    const float* in = sums + row * STRIDE + output;
#pragma unroll 8
                    for (int chunk = first; chunk < last; chunk++, in += SIZE) total[i] = __fadd_rn(total[i], *in);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int at = threadIdx.x + i * 32 * WARPS, row = at / (TILE * MT);
            int output = block * MT * TILE + at % (TILE * MT);
            if (row < ROWS && first_row + row < p.rows && output < job.outputs)
                finish(job, first_row + row, output, total[i]);
        }
    }
}

template <int MT, int NT>
__device__ __forceinline__ void product(const Products& p) {
    const Job& job = job_of(p, blockIdx.x);
    int blocks = (job.outputs + TILE * MT - 1) / (TILE * MT);
    switch (job.format) {
#define CASE(N, F) \
    case N: job_product<F, MT, NT>(p, job, blockIdx.x - job.first_block, blocks); break;
        FOR_EACH_FORMAT(CASE)
#undef CASE
    }
}

#define PRODUCT(ROWS, MT, NT, BLOCKS)                                                                    \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)                                     \
        product_##ROWS(const __grid_constant__ Products p) {                                             \
        product<MT, NT>(p);                                                                              \
    }
PRODUCT(4, 1, 1, 2)
PRODUCT(8, 2, 1, 1)
PRODUCT(16, 2, 2, 1)
PRODUCT(32, 2, 4, 1)

// Products with matrices of single-precision floats, `[outputs, columns]`, which few models have: a warp adds up one
// output of one row, lane by lane and then across lanes.
extern "C" __global__ void product_f32(const float* weight, const float* bias, const float* x, float* out, int outputs,
                                       int columns, int accumulate) {
    wait_for_previous();
    let_next_start();
    int output = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (output >= outputs) return;
    const float* w = weight + (u64)output * columns;
    x += (u64)blockIdx.y * columns;
    float sum = 0.f;
    for (int k = threadIdx.x % 32; k < columns; k += 32) sum = __fmaf_rn(w[k], x[k], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
        if (bias) sum = __fadd_rn(sum, bias[output]);
        float* o = out + (u64)blockIdx.y * outputs + output;
        *o = accumulate ? __fadd_rn(*o, sum) : sum;
    }
}
