// Products with experts for few rows of each, and what follows them.
//
// As in `products.cu`, a block's warps take the chunks in turns and leave their sums in shared memory, where each pair of an output
// and a row is added up in the order of the chunks. There are as many blocks as fit on the GPU, and each goes on to its next unit
// without a pause. Weights are copied to shared memory two chunks ahead, by each warp for itself.

#include "copy.cuh"
#include "grouped.cuh"
#include "one_row.cuh"

// Few rows have few outputs each: smaller blocks leave fewer warps without a chunk.
constexpr int FEW_WARPS = 4;

// Where a warp finds its activations of a chunk: rows in memory, by their numbers.
template <int NT>
struct ByNumber {
    const Forms& x;
    int chunk;
    const int (&mine)[NT];
    const int (&scaled)[NT][2];

    __device__ __forceinline__ ByNumber(const Forms& x, const int (&mine)[NT], const int (&scaled)[NT][2], int chunk)
        : x(x), chunk(chunk), mine(mine), scaled(scaled) {}
    __device__ __forceinline__ uint4 codes256(int n, int q) const {
        return load16(x.q256 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16);
    }
    __device__ __forceinline__ uint2 sums16(int n) const {
        return load8(x.sums16 + ((size_t)mine[n] * x.padded + chunk * CHUNK) / 16 + threadIdx.x % 4 * 4);
    }
    __device__ __forceinline__ float scale256(int n, int i) const { return x.d256[(size_t)scaled[n][i] * x.chunks + chunk]; }
    __device__ __forceinline__ uint4 codes32(int n, int q) const {
        return load16(x.q32 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + threadIdx.x % 4 * 16);
    }
    __device__ __forceinline__ float2 scales32(int n, int i, int q) const {
        return *reinterpret_cast<const float2*>(x.d32 + ((size_t)scaled[n][i] * x.padded + chunk * CHUNK + q * 64) / 32);
    }
    __device__ __forceinline__ float2 sums32(int n, int i, int q) const {
        return *reinterpret_cast<const float2*>(x.s32 + ((size_t)scaled[n][i] * x.padded + chunk * CHUNK + q * 64) / 32);
    }
    __device__ __forceinline__ uint4 halves(int n, int q, int pair) const {
        return load16(x.f16 + (size_t)mine[n] * x.padded + chunk * CHUNK + q * 64 + pair * 32 + threadIdx.x % 4 * 8);
    }
    __device__ __forceinline__ float scale16(int n, int i) const { return x.scale16[(size_t)scaled[n][i] * x.chunks + chunk]; }
};

// Weights on their way to a warp: two chunks of its two tiles. Where half floats would take too much room, they come to registers.
template <class F>
struct Ahead {
    static constexpr bool COPIED = F::codes != HALF;
    static constexpr int STAGES = 2, BYTES = COPIED ? STAGES * 2 * F::bytes(4) : 0;
    u8* space;
    int index, chunk, work, stage;
    // Where the outputs of each tile and its neighbours begin, and which of them it is.
    const u8* from[2];
    int which[2];

    __device__ __forceinline__ Ahead(const Grouped& p, u8* space, int work) : space(space), index(blockIdx.x), work(work) {
        chunk = threadIdx.x / 32, stage = 0;
        find(p);
    }
    __device__ __forceinline__ void find(const Grouped& p) {
        if (index >= work) return;
        const int segment = index / p.units, unit = index - segment * p.units;
        const u64 expert = (u64)p.segments[segment].expert * p.expert_bytes;
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const int tile = Unit::tile_of(p, unit, m);
            from[m] = p.weight[m] + expert + tile / TOGETHER * (TOGETHER * p.tile_row_bytes), which[m] = tile % TOGETHER;
        }
    }
    template <int QUARTERS>
    __device__ __forceinline__ void copy(int quarters) const {
        const int bytes = F::bytes(QUARTERS ? QUARTERS : quarters), lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const u8* source = from[m] + (u64)chunk * (TOGETHER * F::bytes(4)) + which[m] * bytes + lane * 16;
            const u32 to = shared_address(space + (stage * 2 + m) * F::bytes(4)) + lane * 16;
#pragma unroll
            for (int i = 0; i < F::bytes(4); i += 512)
                if (lane * 16 + i < bytes) copy_async<16>(to + i, source + i);
        }
    }
    // Starts the copy of the next chunk, if there is one.
    __device__ __forceinline__ void fetch(const Grouped& p) {
        if (index < work) {
            const int quarters = quarters_of(p.x, chunk);
            if (quarters == 4) copy<4>(4);
            else copy<0>(quarters);
            chunk += FEW_WARPS;
            if (chunk >= p.x.chunks) {
                chunk = threadIdx.x / 32, index += gridDim.x;
                find(p);
            }
        }
        copies_end_group();
        stage ^= 1;
    }
    // The chunk whose copy was started first; starts the next copy to its place.
    template <class Scales>
    __device__ __forceinline__ void take(const Grouped& p, int quarters, Planes<F> (&planes)[2], Scales (&scales)[2]) {
        copies_wait<STAGES - 1>();
        __syncwarp();
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const u8* from = space + (stage * 2 + m) * F::bytes(4);
            planes[m].template load<true>(from, threadIdx.x % 32, quarters);
            scales[m].template load<true>(from, threadIdx.x % 32, quarters);
        }
        __syncwarp();
        fetch(p);
    }
};

// NT is 0 for segments of one row.
template <class F, int NT>
__device__ __forceinline__ void few_rows(const Grouped& p) {
    // Weights on their way; the sums of `p.round` chunks, after what was added up in the rounds before.
    extern __shared__ u8 shared[];
    constexpr int STRIDE = 2 * TILE + 4, SIZE = (NT ? 8 * NT : 1) * STRIDE;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int chunks = p.x.chunks;
    float* const before = (float*)(shared + FEW_WARPS * Ahead<F>::BYTES);
    float* const sums = before + SIZE;
    wait_for_previous();
    let_next_start();
    const int work = segments_of(p) * p.units;
    if (blockIdx.x >= work) return;

    Planes<F> planes[2];
    TileScales<F> scales[2];
    OneScales<F> one_scales[2];
    Ahead<F> ahead(p, shared + warp * Ahead<F>::BYTES, work);
    if (Ahead<F>::COPIED && warp < chunks)
        for (int i = 0; i < Ahead<F>::STAGES; i++) ahead.fetch(p);
    for (int index = blockIdx.x; index < work; index += gridDim.x) {
        const Unit at(p.segments[index / p.units], index % p.units);
        int mine[NT ? NT : 1], scaled[NT ? NT : 1][2];
        if constexpr (NT == 0) mine[0] = at.row(p, 0);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            mine[n] = at.row(p, 8 * n + g);
            scaled[n][0] = at.row(p, 8 * n + 2 * t);
            scaled[n][1] = at.row(p, 8 * n + 2 * t + 1);
        }
        for (int first = 0; first < chunks; first += p.round) {
            const int last = min(first + p.round, chunks);
            for (int chunk = first + warp; chunk < last; chunk += FEW_WARPS) {
                const int quarters = quarters_of(p.x, chunk);
                float* out = sums + (chunk - first) * SIZE;
                if constexpr (NT == 0) {
                    ahead.take(p, quarters, planes, one_scales);
                    float sum[2][2];
                    one_row_product<F, 2>(planes, one_scales, OneRow(p.x, mine[0], chunk), quarters, sum);
                    // Each lane of four writes one.
                    const float low = t < 2 ? sum[0][0] : sum[1][0], high = t < 2 ? sum[0][1] : sum[1][1];
                    out[TILE * (t / 2) + g + t % 2 * 8] = t % 2 ? high : low;
                } else {
                    if constexpr (Ahead<F>::COPIED) ahead.take(p, quarters, planes, scales);
                    else at.load<F>(p, chunk, planes, scales);
                    float sum[2][NT][4];
                    ByNumber<NT> x(p.x, mine, scaled, chunk);
                    chunk_product<F, 2, NT>(planes, scales, x, quarters, sum);
#pragma unroll
                    for (int m = 0; m < 2; m++)
#pragma unroll
                        for (int n = 0; n < NT; n++)
#pragma unroll
                            for (int i = 0; i < 4; i++)
                                out[(8 * n + 2 * t + i % 2) * STRIDE + TILE * m + g + i / 2 * 8] = sum[m][n][i];
                }
            }
            __syncthreads();
#pragma unroll 1
            for (int row = warp; row < at.count; row += FEW_WARPS) {
                float* carried = before + row * STRIDE + lane;
                float total = first > 0 ? *carried : 0.f;
                const float* in = sums + row * STRIDE + lane;
#pragma unroll 4
                for (int chunk = first; chunk < last; chunk++, in += SIZE) total = __fadd_rn(total, *in);
                if (last < chunks) *carried = total;
                else at.finish(p, row, total);
            }
            __syncthreads();
        }
    }
}

// Blocks on a multiprocessor, by the registers that a format's weights take. The host has the same rule.
template <class F>
constexpr int few_blocks(int rows) {
    if (F::codes == HALF || rows == 32) return 2;
    const bool large = F::codes == I8 || F::codes == U5 || F::codes == U6 || F::scales == TWIN || (F::scales == BLOCK && F::min);
    if (rows == 1) return large ? 3 : 5;
    return (rows == 8 ? 4 : 3) - large;
}

// One kernel for each format and number of rows. The host has the same list.
#define FEW(NAME, F, ROWS)                                                                      \
    extern "C" __global__ void __launch_bounds__(32 * FEW_WARPS, few_blocks<F>(ROWS))           \
        NAME(const __grid_constant__ Grouped p) {                                               \
        few_rows<F, ROWS == 1 && F::codes == HALF ? 1 : ROWS / 8>(p);                           \
    }
#define FEW_SHAPES(N, F) FEW(few_1_##N, F, 1) FEW(few_8_##N, F, 8) FEW(few_16_##N, F, 16) FEW(few_32_##N, F, 32)
FOR_EACH_FORMAT(FEW_SHAPES)

// The last step of a mixture where each pair is a segment of its own.
struct Downs {
    const u8* weight;
    const float* bias;
    // [rows * used, columns]
    const float* hidden;
    float* out;
    u64 expert_bytes;
    u64 tile_row_bytes;
    const int* chosen;
    // By pair; null where they are 1.
    const float* weights;
    float factor;
    int columns;
    int outputs;
    int used;
    int accumulate;
};

constexpr int MOST_DOWN_WARPS = 16;

template <bool FIRST, class A, class B>
struct Either {
    typedef A type;
};
template <class A, class B>
struct Either<false, A, B> {
    typedef B type;
};

// Quantizes the hidden numbers of a row's pairs, multiplies them with their experts' downs and adds these up: x is the tile of
// outputs, y the row. The numbers are quantized by every block, which is sooner done than by another launch.
template <class F>
__device__ __forceinline__ void row_downs(const Downs& p) {
    extern __shared__ u8 space[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warps = blockDim.x / 32;
    Forms x = {};
    x.padded = (p.columns + QUARTER - 1) / QUARTER * QUARTER, x.chunks = (p.columns + CHUNK - 1) / CHUNK;
    u8* at = space;
    auto take = [&](int bytes) {
        u8* taken = at;
        at += (bytes + 15) / 16 * 16;
        return taken;
    };
    if constexpr (F::codes == HALF) {
        x.f16 = (__half*)take(2 * p.used * x.padded), x.scale16 = (float*)take(4 * p.used * x.chunks);
    } else if constexpr (F::by32) {
        x.q32 = take(p.used * x.padded);
        x.d32 = (float*)take(p.used * x.padded / 8), x.s32 = (float*)take(p.used * x.padded / 8);
    } else {
        x.q256 = take(p.used * x.padded);
        x.sums16 = (__half*)take(p.used * x.padded / 8), x.d256 = (float*)take(4 * p.used * x.chunks);
    }
    const int units = p.used * x.chunks, tile = blockIdx.x, first_pair = blockIdx.y * p.used;
    float* partial = (float*)take(units * TILE * 4);
    float* results = (float*)at;

    // The experts were chosen before the kernel before this one started, which waited for that: their weights can be on the way.
    constexpr bool AHEAD = F::codes != HALF && F::codes != I8;
    Planes<F> planes[1], ahead[1];
    typedef Either<F::codes == HALF, TileScales<F>, OneScales<F>> Scales;
    typename Scales::type scales[1], scales_ahead[1];
    auto load = [&](int unit, Planes<F>& planes, typename Scales::type& scales) {
        const int chunk = unit % x.chunks, quarters = quarters_of(x, chunk);
        const u8* from = p.weight + (u64)p.chosen[first_pair + unit / x.chunks] * p.expert_bytes +
                         tile_at<F>(tile, chunk, quarters, p.tile_row_bytes);
        planes.load(from, lane, quarters);
        scales.load(from, lane, quarters);
    };
    if (warp < units) load(warp, planes[0], scales[0]);
    if (AHEAD && warp + warps < units) load(warp + warps, ahead[0], scales_ahead[0]);
    wait_for_previous();
    let_next_start();
#pragma unroll 2
    for (int unit = warp; unit < units; unit += warps) {
        const int pair = unit / x.chunks, chunk = unit % x.chunks;
        float v[8];
        load_row8(p.hidden + (u64)(first_pair + pair) * p.columns, chunk * CHUNK + lane * 8, p.columns, v);
        put_forms(x, pair, chunk, v);
    }
    __syncthreads();
    for (int unit = warp; unit < units; unit += warps) {
        const int pair = unit / x.chunks, chunk = unit % x.chunks;
        if constexpr (F::codes == HALF) {
            float sum[1][1][4];
            InMemory<1> row(x, pair, pair + 1, chunk);
            chunk_product<F, 1, 1>(planes, scales, row, quarters_of(x, chunk), sum);
            // All eight rows are the same.
            if (t == 0) partial[unit * TILE + g] = sum[0][0][0], partial[unit * TILE + g + 8] = sum[0][0][2];
        } else {
            float sum[1][2];
            one_row_product<F, 1>(planes, scales, OneRow(x, pair, chunk), quarters_of(x, chunk), sum);
            if (t < 2) partial[unit * TILE + g + 8 * t] = t ? sum[0][1] : sum[0][0];
        }
        if constexpr (AHEAD) {
            planes[0] = ahead[0], scales[0] = scales_ahead[0];
            if (unit + 2 * warps < units) load(unit + 2 * warps, ahead[0], scales_ahead[0]);
        } else if (unit + warps < units) {
            load(unit + warps, planes[0], scales[0]);
        }
    }
    __syncthreads();
    const int o = threadIdx.x % TILE, output = tile * TILE + o;
    for (int pair = threadIdx.x / TILE; pair < p.used; pair += 32 * warps / TILE) {
        float total = 0.f;
        for (int chunk = 0; chunk < x.chunks; chunk++) total = __fadd_rn(total, partial[(pair * x.chunks + chunk) * TILE + o]);
        float value = __fmul_rn(total, p.factor);
        if (output >= p.outputs) continue;
        if (p.bias) value = __fadd_rn(value, p.bias[(u64)p.chosen[first_pair + pair] * p.outputs + output]);
        results[pair * TILE + o] = __fmul_rn(p.weights ? p.weights[first_pair + pair] : 1.f, value);
    }
    __syncthreads();
    if (threadIdx.x >= TILE || output >= p.outputs) return;
    float sum = 0.f;
    for (int pair = 0; pair < p.used; pair++) sum = __fadd_rn(sum, results[pair * TILE + o]);
    float* out = p.out + (u64)blockIdx.y * p.outputs + output;
    *out = p.accumulate ? __fadd_rn(*out, sum) : sum;
}

#define DOWNS(N, F)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * MOST_DOWN_WARPS, 1) row_downs_##N(const __grid_constant__ Downs p) {        \
        row_downs<F>(p);                                                                                                \
    }
FOR_EACH_FORMAT(DOWNS)

// The sum of a row's weighted results, in the order of the experts' numbers: y is the row. The same operations as in `row_downs`.
extern "C" __global__ void combine(const float* results, const float* bias, const int* place_of, const int* chosen,
                                   const float* weights, float* out, int outputs, int used, int accumulate) {
    wait_for_previous();
    let_next_start();
    const int output = blockIdx.x * blockDim.x + threadIdx.x, pair = blockIdx.y * used;
    if (output >= outputs) return;
    float sum = 0.f;
    for (int k = 0; k < used; k++) {
        float value = results[(u64)place_of[pair + k] * outputs + output];
        if (bias) value = __fadd_rn(value, bias[(u64)chosen[pair + k] * outputs + output]);
        sum = __fadd_rn(sum, __fmul_rn(weights ? weights[pair + k] : 1.f, value));
    }
    float* o = out + (u64)blockIdx.y * outputs + output;
    *o = accumulate ? __fadd_rn(*o, sum) : sum;
}

// The forms of all places' rows: a warp for a chunk, x is the place.
extern "C" __global__ void quantize_places(const float* x, int columns, Forms forms) {
    wait_for_previous();
    let_next_start();
    const int chunk = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    if (chunk * CHUNK >= columns) return;
    float v[8];
    load_row8(x + (u64)blockIdx.x * columns, chunk * CHUNK + threadIdx.x % 32 * 8, columns, v);
    put_forms(forms, blockIdx.x, chunk, v);
}

// Products with experts of single-precision floats, `[experts, outputs, columns]`: a warp adds up one output of one place, as
// `product_f32` does. x is eight outputs, y the segment.
extern "C" __global__ void experts_f32(const __grid_constant__ Grouped p, const float* x, int columns) {
    wait_for_previous();
    let_next_start();
    if (blockIdx.y >= segments_of(p)) return;
    const Segment s = p.segments[blockIdx.y];
    const int output = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (output >= p.outputs) return;
    const Unit at(s, 0);
    const float* w = (const float*)p.weight[0] + ((u64)s.expert * p.outputs + output) * columns;
    for (int i = 0; i < s.count; i++) {
        const float* row = x + (u64)at.row(p, i) * columns;
        float sum = 0.f;
        for (int k = lane; k < columns; k += 32) sum = __fmaf_rn(w[k], row[k], sum);
        sum = warp_sum(sum);
        if (lane == 0) at.finish_plain(p, i, output, sum);
    }
}

// gate = activation(gate) · up, for gates and ups of different types.
extern "C" __global__ void activate_places(float* gate, const float* up, u64 len, int kind, float alpha, float limit) {
    wait_for_previous();
    let_next_start();
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) gate[i] = activate(kind, gate[i], up[i], alpha, limit);
}

// The table of the product of each head with a matrix of its own: head `h` of row `r` is row `r · heads + h` of the input. A thread
// for each place.
extern "C" __global__ void heads_table(Table t, int heads, int rows, int block) {
    wait_for_previous();
    let_next_start();
    const int place = blockIdx.x * blockDim.x + threadIdx.x, blocks = (rows + block - 1) / block;
    if (place == 0) *t.count = heads * blocks;
    if (place >= heads * rows) return;
    const int head = place / rows, row = place % rows;
    t.row_of[place] = row * heads + head;
    if (row % block == 0) t.segments[head * blocks + row / block] = {head, place, min(block, rows - row), 0};
}
