// The choice of each row's experts, and the table of each expert's rows, in one launch.
//
// Blocks of threads compute the scores of some experts for a group of rows. The last block of a group to finish chooses the
// experts of its rows, a warp for each row; and the last of these, over all groups, makes the table. So nothing waits for another
// launch, and the host learns nothing.

#include "experts.cuh"

enum Gating { SOFTMAX, SIGMOID_OF_EACH, SOFTMAX_OF_CHOSEN };

struct Route {
    // [experts, columns]; null if the scores are there already.
    const float* router;
    const float* x;
    const float* router_bias;
    const float* selection_bias;
    float* scores;  // [rows, experts]
    // Counts of blocks that have finished, for each group of rows and for all: zeros between launches.
    u32* tickets;
    Table table;
    int rows;
    int experts;
    int columns;
    int used;
    int gating;
    // Groups of experts, 0 without, and those that experts are chosen from.
    int groups;
    int groups_used;
    // Groups compete by their best two, instead of by the best one.
    int by_two;
    int normalize;
    float scale;
    // Rows of a segment; 0 if each pair is a segment of its own, in the order of rows.
    int block;
};

constexpr int THREADS = 256;

// Four columns, zeros past the end. ALIGNED: rows are a multiple of four columns.
template <bool ALIGNED>
__device__ __forceinline__ float4 load4(const float* x, int column, int columns) {
    float4 v = make_float4(0, 0, 0, 0);
    if (ALIGNED) {
        if (column < columns) v = *reinterpret_cast<const float4*>(x + column);
        return v;
    }
    if (column < columns) v.x = x[column];
    if (column + 1 < columns) v.y = x[column + 1];
    if (column + 2 < columns) v.z = x[column + 2];
    if (column + 3 < columns) v.w = x[column + 3];
    return v;
}

// Every kernel adds up a score like this, lane by lane and then across lanes, whatever else it computes.
__device__ __forceinline__ float add4(float sum, float4 w, float4 x) {
    sum = __fmaf_rn(w.x, x.x, sum);
    sum = __fmaf_rn(w.y, x.y, sum);
    sum = __fmaf_rn(w.z, x.z, sum);
    return __fmaf_rn(w.w, x.w, sum);
}

// A warp's scores: EXPERTS experts for ROWS rows. Rows past the last are whatever memory holds there, and not used: buffers have
// room for a power of two of rows.
template <bool ALIGNED, int ROWS, int EXPERTS>
__device__ __forceinline__ void score(const Route& p, int first_row, int first_expert) {
    const int lane = threadIdx.x % 32;
    float sum[ROWS][EXPERTS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int e = 0; e < EXPERTS; e++) sum[r][e] = 0.f;
    // With few rows many loads are on their way at once, the first before the rows are there.
    constexpr int AHEAD = ROWS == 1 ? 16 : EXPERTS == 1 ? 8 : 1;
    const float* router[EXPERTS];
#pragma unroll
    for (int e = 0; e < EXPERTS; e++) router[e] = p.router + (u64)min(first_expert + e, p.experts - 1) * p.columns;
    const float* const rows = p.x + (u64)first_row * p.columns;
    float4 w[AHEAD][EXPERTS];
    auto weights = [&](int column) {
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
#pragma unroll
            for (int e = 0; e < EXPERTS; e++) w[a][e] = load4<ALIGNED>(router[e], column + a * 128, p.columns);
    };
    weights(lane * 4);
    wait_for_previous();
    let_next_start();
    for (int column = lane * 4; column < p.columns; column += 128 * AHEAD) {
        if (AHEAD > 1 && column != lane * 4) weights(column);
        float4 now[AHEAD][EXPERTS];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
#pragma unroll
            for (int e = 0; e < EXPERTS; e++) now[a][e] = w[a][e];
        if (AHEAD == 1) weights(column + 128);
        const float* row = rows;
#pragma unroll
        for (int r = 0; r < ROWS; r++, row += p.columns)
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                // The loop's own condition, where there is no more than one.
                float4 x = AHEAD == 1 && ALIGNED ? *reinterpret_cast<const float4*>(row + column)
                                                 : load4<ALIGNED>(row, column + a * 128, p.columns);
#pragma unroll
                for (int e = 0; e < EXPERTS; e++) sum[r][e] = add4(sum[r][e], now[a][e], x);
            }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int e = 0; e < EXPERTS; e++) {
            float total = warp_sum(sum[r][e]);
            int expert = first_expert + e, row = first_row + r;
            if (lane == (r * EXPERTS + e) % 32 && expert < p.experts && row < p.rows) {
                if (p.router_bias) total = __fadd_rn(total, p.router_bias[expert]);
                p.scores[(u64)row * p.experts + expert] = total;
            }
        }
}

// Whether this block is the last of `count` to come here; the ticket is 0 again then.
__device__ __forceinline__ bool is_last(u32* ticket, u32 count) {
    if (count == 1) {
        __syncthreads();
        return true;
    }
    __threadfence();
    // Also makes the whole block's writes come before the ticket.
    __syncthreads();
    __shared__ u32 taken;
    if (threadIdx.x == 0) {
        taken = atomicAdd(ticket, 1);
        if (taken == count - 1) *ticket = 0;
    }
    __syncthreads();
    bool last = taken == count - 1;
    __threadfence();
    // Before the next call writes it.
    __syncthreads();
    return last;
}

// Floats in an order of whole numbers. Those that are left out are 0.
__device__ __forceinline__ u32 ordered(float key) {
    // -0 is 0, and NaN the least.
    u32 bits = __float_as_uint(key != key ? -INFINITY : key + 0.f);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

// Leaves out the experts of all but the best groups. `keys` and `ranks` are the warp's.
template <int VALUES>
__device__ __forceinline__ void keep_groups(const Route& p, u32 (&order)[VALUES], float* keys, float* ranks) {
    const int lane = threadIdx.x % 32, size = p.experts / p.groups;
    for (int group = lane; group < p.groups; group += 32) {
        float first = -INFINITY, second = -INFINITY;
        for (int i = 0; i < size; i++) {
            float k = keys[group * size + i];
            if (k > first) second = first, first = k;
            else if (k > second) second = k;
        }
        ranks[group] = p.by_two && size > 1 ? first + second : first;
    }
    __syncwarp();
    // From here on a key says whether its group, by its first expert, is kept.
    for (int group = lane; group < p.groups; group += 32) {
        int better = 0;
        for (int other = 0; other < p.groups; other++)
            better += ranks[other] > ranks[group] || (ranks[other] == ranks[group] && other < group);
        keys[group * size] = better < p.groups_used ? 1.f : 0.f;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < VALUES; i++)
        if (lane + 32 * i < p.experts && keys[(lane + 32 * i) / size * size] == 0.f) order[i] = 0;
    __syncwarp();
}

// Chooses the experts of a row, on a warp, each lane of which has every 32nd expert.
template <int VALUES>
__device__ __forceinline__ void choose(const Route& p, int row, float* keys, float* ranks) {
    const int lane = threadIdx.x % 32;
    const float* scores = p.scores + (u64)row * p.experts;
    float value[VALUES];
    u32 order[VALUES];
#pragma unroll
    for (int i = 0; i < VALUES; i++) value[i] = lane + 32 * i < p.experts ? __ldcg(scores + lane + 32 * i) : -INFINITY;
    if (p.gating == SOFTMAX) {
        float most = -INFINITY, sum = 0.f;
#pragma unroll
        for (int i = 0; i < VALUES; i++) most = fmaxf(most, value[i]);
        most = warp_max(most);
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (lane + 32 * i < p.experts) value[i] = expf(value[i] - most), sum += value[i];
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < VALUES; i++) value[i] = __fdiv_rn(value[i], sum);
    } else if (p.gating == SIGMOID_OF_EACH) {
#pragma unroll
        for (int i = 0; i < VALUES; i++) value[i] = 1.f / (1.f + expf(-value[i]));
    }
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
        int expert = lane + 32 * i;
        bool inside = expert < p.experts;
        float key = inside && p.selection_bias ? value[i] + p.selection_bias[expert] : value[i];
        order[i] = inside ? ordered(key) : 0;
        if (p.groups > 0 && inside) keys[expert] = key != key ? -INFINITY : key;
    }
    if (p.groups > 0) {
        __syncwarp();
        keep_groups(p, order, keys, ranks);
    }
    int mine = p.experts;
    float weight = 0.f;
    for (int k = 0; k < p.used; k++) {
        u32 best = 0;
        int at = 0;
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (order[i] > best) best = order[i], at = i;
        u32 highest = __reduce_max_sync(~0u, best);
        int expert = (int)__reduce_min_sync(~0u, best == highest ? (u32)(lane + 32 * at) : ~0u);
        float taken = 0.f;
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (lane + 32 * i == expert) taken = value[i], order[i] = 0;
        taken = __shfl_sync(~0u, taken, expert % 32);
        if (lane == k) mine = expert, weight = taken;
    }
    const bool one = lane < p.used;
    if (p.gating == SOFTMAX_OF_CHOSEN) {
        float most = warp_max(one ? weight : -INFINITY);
        weight = one ? expf(weight - most) : 0.f;
        weight = __fdiv_rn(weight, warp_sum(weight));
    }
    // By the experts' numbers.
    int place = 0;
    for (int k = 0; k < p.used; k++) place += __shfl_sync(~0u, mine, k) < mine;
    if (p.normalize) weight = __fdiv_rn(weight, fmaxf(warp_sum(one ? weight : 0.f), 1.17549435e-38f));
    weight *= p.scale;
    if (!one) return;
    const Table& t = p.table;
    const int pair = row * p.used + place;
    t.chosen[pair] = mine;
    t.weights[pair] = weight;
    if (p.block == 0) {
        t.segments[pair] = {mine, pair, 1, 0};
        t.row_of[pair] = row;
        t.weight_of[pair] = weight;
        t.place_of[pair] = pair;
    }
}

// Sorts all pairs by expert, on one block.
__device__ __forceinline__ void make_table(const Route& p) {
    __shared__ int next[MOST_EXPERTS];
    const Table& t = p.table;
    const int pairs = p.rows * p.used, lane = threadIdx.x % 32;
    for (int e = threadIdx.x; e < p.experts; e += THREADS) next[e] = 0;
    __syncthreads();
    // Several loads at a time.
    constexpr int AT_ONCE = 8;
    for (int first = threadIdx.x; first < pairs; first += AT_ONCE * THREADS) {
        int expert[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) expert[i] = first + i * THREADS < pairs ? __ldcg(t.chosen + first + i * THREADS) : -1;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (expert[i] >= 0) atomicAdd(&next[expert[i]], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int places = 0, segments = 0;
        for (int first = 0; first < p.experts; first += 32) {
            const int e = first + lane, count = e < p.experts ? next[e] : 0, own = (count + p.block - 1) / p.block;
            int before = count, segments_before = own;
#pragma unroll
            for (int far = 1; far < 32; far *= 2) {
                int a = __shfl_up_sync(~0u, before, far), b = __shfl_up_sync(~0u, segments_before, far);
                if (lane >= far) before += a, segments_before += b;
            }
            const int start = places + before - count, at = segments + segments_before - own;
            for (int i = 0; i < own; i++)
                t.segments[at + i] = {e, start + i * p.block, min(p.block, count - i * p.block), 0};
            if (e < p.experts) next[e] = start;
            places += __shfl_sync(~0u, before, 31), segments += __shfl_sync(~0u, segments_before, 31);
        }
        if (lane == 0) *t.count = segments;
    }
    __syncthreads();
    // The order of an expert's rows is any: a row's results do not depend on it.
    for (int first = threadIdx.x; first < pairs; first += AT_ONCE * THREADS) {
        int expert[AT_ONCE];
        float weight[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int pair = first + i * THREADS;
            expert[i] = pair < pairs ? __ldcg(t.chosen + pair) : -1;
            weight[i] = pair < pairs ? __ldcg(t.weights + pair) : 0.f;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (expert[i] < 0) continue;
            const int pair = first + i * THREADS, place = atomicAdd(&next[expert[i]], 1);
            t.row_of[place] = pair / p.used;
            t.weight_of[place] = weight[i];
            t.place_of[pair] = place;
        }
    }
}

template <int ROWS, int EXPERTS>
__device__ __forceinline__ void route(const Route& p) {
    constexpr int WARPS = THREADS / 32;
    __shared__ float keys[WARPS][MOST_EXPERTS], ranks[WARPS][MOST_EXPERTS];
    const int warp = threadIdx.x / 32, first_row = blockIdx.y * ROWS;
    if (p.router) {
        const int first_expert = (blockIdx.x * WARPS + warp) * EXPERTS;
        if (p.columns % 4 == 0) score<true, ROWS, EXPERTS>(p, first_row, first_expert);
        else score<false, ROWS, EXPERTS>(p, first_row, first_expert);
    } else {
        wait_for_previous();
        let_next_start();
    }
    if (!is_last(p.tickets + 1 + blockIdx.y, gridDim.x)) return;
    for (int row = first_row + warp; row < min(first_row + ROWS, p.rows); row += WARPS) {
        if (p.experts <= 128) choose<4>(p, row, keys[warp], ranks[warp]);
        else choose<MOST_EXPERTS / 32>(p, row, keys[warp], ranks[warp]);
    }
    if (p.block == 0) {
        if (blockIdx.y == 0 && threadIdx.x == 0) *p.table.count = p.rows * p.used;
        return;
    }
    if (is_last(p.tickets, gridDim.y)) make_table(p);
}

// Rows of a group, and experts of a warp. The host has the same list.
extern "C" __global__ void __launch_bounds__(THREADS) route_1(const __grid_constant__ Route p) { route<1, 1>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) route_4(const __grid_constant__ Route p) { route<4, 1>(p); }
extern "C" __global__ void __launch_bounds__(THREADS, 2) route_16(const __grid_constant__ Route p) { route<16, 4>(p); }
