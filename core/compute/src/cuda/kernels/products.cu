// Products for few rows: decoding. What is read from memory is the weights, and little else.
//
// A block has 16 · MT outputs and up to 8 · NT rows. Its warps take the chunks in turns and leave their sums in shared
// memory; then each pair of an output and a row is added up in the order of the chunks (see `chunk.cuh`). Weights do not
// depend on the kernels before this one, so the first are on their way before those have finished.

#include "chunk.cuh"

constexpr int WARPS = 8;
constexpr int MAX_JOBS = 4;

struct Job {
    const u8* weight;
    const float* bias;
    float* out;
    u64 tile_row_bytes;
    int format;
    int outputs;
    int first_block;
    int accumulate;
    // Undoes the power of two that bfloat16 weights were multiplied with.
    float factor;
};

struct Products {
    Job jobs[MAX_JOBS];
    Forms x;
    int count;
    int rows;
    int columns;
    // Chunks whose sums shared memory holds: a multiple of the warps.
    int round;
};

namespace {

template <class F, int MT>
__device__ __forceinline__ void load_tiles(const Job& job, int tile, int tiles, int chunk, int quarters,
                                           Planes<F> (&planes)[MT], TileScales<F> (&scales)[MT]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const u8* p = job.weight + min(tile + m, tiles - 1) * job.tile_row_bytes + (u64)chunk * F::bytes(4);
        planes[m].load(p, lane, quarters);
        scales[m].load(p, lane, quarters);
    }
}

// `PASSES` times 8 · NT rows: more rows than registers hold at once, with the weights loaded once.
template <class F, int MT, int NT, int PASSES>
__device__ __forceinline__ void block_product(const Products& p, const Job& job, int block) {
    extern __shared__ float partial[];
    // Rows of outputs, padded so that a warp's stores hit all banks.
    constexpr int STRIDE = TILE * MT + 4, ROWS = 8 * NT * PASSES, SIZE = ROWS * STRIDE;
    constexpr int COUNT = (TILE * MT * ROWS + 32 * WARPS - 1) / (32 * WARPS);
    constexpr bool AHEAD = MT * NT <= 2 && F::codes != HALF && F::codes != I8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tile = block * MT, tiles = (job.outputs + TILE - 1) / TILE;
    const int chunks = p.x.chunks, first_row = blockIdx.y * ROWS;
    auto quarters = [&](int chunk) { return min(4, (p.x.padded - chunk * CHUNK) / QUARTER); };

    Planes<F> planes[MT], ahead[MT];
    TileScales<F> scales[MT], scales_ahead[MT];
    if (warp < chunks) load_tiles<F, MT>(job, tile, tiles, warp, quarters(warp), planes, scales);
    wait_for_previous();
    let_next_start();

    float total[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) total[i] = 0.f;
    for (int first = 0; first < chunks; first += p.round) {
        int last = min(first + p.round, chunks);
        for (int chunk = first + warp; chunk < last; chunk += WARPS) {
            if constexpr (AHEAD) {
                if (chunk + WARPS < chunks)
                    load_tiles<F, MT>(job, tile, tiles, chunk + WARPS, quarters(chunk + WARPS), ahead, scales_ahead);
            } else if (chunk != warp) {
                load_tiles<F, MT>(job, tile, tiles, chunk, quarters(chunk), planes, scales);
            }
#pragma unroll 1
            for (int pass = 0; pass < PASSES; pass++) {
                float sum[MT][NT][4];
                Rows<NT> rows(first_row + pass * 8 * NT, p.rows);
                chunk_product<F, MT, NT>(planes, scales, p.x, rows, chunk, quarters(chunk), sum);
                float* out = partial + (chunk - first) * SIZE + pass * 8 * NT * STRIDE;
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int n = 0; n < NT; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            out[(8 * n + 2 * t + i % 2) * STRIDE + TILE * m + g + i / 2 * 8] = sum[m][n][i];
            }
            if constexpr (AHEAD) {
#pragma unroll
                for (int m = 0; m < MT; m++) planes[m] = ahead[m], scales[m] = scales_ahead[m];
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int at = threadIdx.x + i * 32 * WARPS, output = at % (TILE * MT), row = at / (TILE * MT);
            if (row < ROWS) {
                const float* in = partial + row * STRIDE + output;
#pragma unroll 8
                for (int chunk = first; chunk < last; chunk++, in += SIZE) total[i] = __fadd_rn(total[i], *in);
            }
        }
        if (last < chunks) __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        int at = threadIdx.x + i * 32 * WARPS, row = first_row + at / (TILE * MT);
        int output = tile * TILE + at % (TILE * MT);
        if (at / (TILE * MT) >= ROWS || row >= p.rows || output >= job.outputs) continue;
        float value = __fmul_rn(total[i], job.factor);
        if (job.bias) value = __fadd_rn(value, job.bias[output]);
        float* out = job.out + (u64)row * job.outputs + output;
        *out = job.accumulate ? __fadd_rn(*out, value) : value;
    }
}

template <int MT, int NT, int PASSES>
__device__ __forceinline__ void product(const Products& p) {
    int j = 0;
#pragma unroll
    for (int i = 1; i < MAX_JOBS; i++)
        if (i < p.count && blockIdx.x >= p.jobs[i].first_block) j = i;
    const Job& job = p.jobs[j];
    switch (job.format) {
#define CASE(N, F) \
    case N: block_product<F, MT, NT, PASSES>(p, job, blockIdx.x - job.first_block); break;
        FOR_EACH_FORMAT(CASE)
#undef CASE
    }
}

}  // namespace

#define PRODUCT(ROWS, MT, NT, PASSES, BLOCKS)                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)                                     \
        product_##ROWS(const __grid_constant__ Products p) {                                             \
        product<MT, NT, PASSES>(p);                                                                      \
    }
PRODUCT(4, 1, 1, 1, 2)
PRODUCT(8, 2, 1, 1, 1)
PRODUCT(16, 2, 2, 1, 1)
PRODUCT(32, 2, 4, 1, 1)
PRODUCT(64, 2, 4, 2, 1)

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
