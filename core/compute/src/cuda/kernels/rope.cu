// Rotations, norms of heads, and the cache's floats.

#include "cache.cuh"

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

// What the cache holds: half floats, single-precision floats, or codes; codes of several rows of a sequence are written by
// `store_codes`, because the first key of a page may be another row's. Or nothing is written yet.
enum Kind { HALVES, FLOATS, CODES, CODES_LATER, NOTHING };

enum NormKind { NO_NORM, RMS, LAYER };

// A norm of the heads of queries or keys.
struct HeadNorm {
    // Null for ones, and for zeros.
    const float* weight;
    const float* bias;
    float eps;
    // Numbers from one head's weights to the next one's; 0 if all heads share them.
    int step;
    int kind;
};

struct RopeStore {
    float* q;
    float* k;
    const float* v;
    const float* rotations;
    // The layer's pages; see `cache.cuh`.
    void* keys;
    void* values;
    const u32* positions;
    // Where a row's page table starts in `pages`.
    const u32* tables;
    const u32* pages;
    // Of queries and of keys.
    HeadNorm norms[2];
    // Of attention's temperature by position; no temperature if the period is 0.
    float offset;
    float period;
    float slope;
    int heads;
    int kv_heads;
    // Key/value heads that a page has room for: those of the layer with the most.
    int page_heads;
    int dim;
    // `dim` as the cache holds it.
    int padded;
    // Numbers of a head that are rotated, and whether pairs lie side by side.
    int rotated;
    int interleaved;
    int after_rope;
    int kind;
};

// The factor on queries at a position. In double precision: where the factor changes, it must not be off by a period.
__device__ __forceinline__ float temperature(const RopeStore& p, u32 position) {
    const double periods = floor(((double)position + (double)p.offset) / (double)p.period);
    return (float)(log(periods + 1.) * (double)p.slope + 1.);
}

// A warp for each head of each row: query heads, then key heads, then value heads; y is the row. `MOST` numbers of a head are on
// one lane. `ANY` has all kinds of norms and temperature; without it, norms are RMS norms with one weight for all heads.
template <int MOST, bool ANY>
__device__ __forceinline__ void rope_store_of(const RopeStore& p) {
    wait_for_previous();
    let_next_start();
    int head = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.y;
    if (head >= p.heads + 2 * p.kv_heads) return;
    bool query = head < p.heads, value = head >= p.heads + p.kv_heads;
    int kv = value ? head - p.heads - p.kv_heads : head - p.heads;
    const float* source = query ? p.q + ((u64)row * p.heads + head) * p.dim
                                : (value ? p.v : p.k) + ((u64)row * p.kv_heads + kv) * p.dim;
    // Found while the numbers are on their way.
    const bool stored = !query && p.kind <= CODES;
    u32 page = 0, slot = 0;
    if (stored) {
        const u32 position = p.positions[row];
        page = p.pages[p.tables[row] + position / PAGE], slot = position % PAGE;
    }
    float x[MOST];
    // Number `i` of a lane: pairs of neighbours for interleaved pairs, else every 32nd.
    auto place = [&](int i) { return p.interleaved ? i / 2 * 64 + lane * 2 + i % 2 : i * 32 + lane; };
    // What a norm subtracts from the numbers `of(i)` of a head, and the factor that follows.
    auto statistics = [&](const HeadNorm& norm, auto of, float& mean, float& factor) {
        mean = 0.f;
        if (ANY && norm.kind == LAYER) {
            float sum = 0.f;
#pragma unroll
            for (int i = 0; i < MOST; i++)
                if (place(i) < p.dim) sum += of(i);
            mean = warp_sum(sum) / p.dim;
        }
        float sum = 0.f;
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (place(i) < p.dim) sum = fmaf(of(i) - mean, of(i) - mean, sum);
        factor = rsqrtf(warp_sum(sum) / p.dim + norm.eps);
    };
    if (value) {
#pragma unroll
        for (int i = 0; i < MOST; i++) x[i] = place(i) < p.dim ? source[place(i)] : 0.f;
    } else {
        const HeadNorm& norm = p.norms[query ? 0 : 1];
        const float* weight = norm.weight;
        const float* bias = norm.bias;
        if (ANY) {
            const int first = (query ? head : kv) * norm.step;
            if (weight) weight += first;
            if (bias) bias += first;
        }
        const bool normed = ANY ? norm.kind != NO_NORM : weight != nullptr;
        const bool before = normed && !(ANY && p.after_rope);
        float mean = 0.f, factor = 1.f;
        auto by = [&](float x, int j) {
            if (!ANY) return x * factor * weight[j];
            x = (x - mean) * factor;
            if (weight) x *= weight[j];
            return bias ? x + bias[j] : x;
        };
        if (before) statistics(norm, [&](int i) { return source[place(i)]; }, mean, factor);
        auto at = [&](int j) { return before ? by(source[j], j) : source[j]; };
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
        if (ANY && normed && p.after_rope) {
            statistics(norm, [&](int i) { return x[i]; }, mean, factor);
#pragma unroll
            for (int i = 0; i < MOST; i++)
                if (place(i) < p.dim) x[i] = by(x[i], place(i));
        }
        if (ANY && query && p.period > 0.f) {
            const float by_position = temperature(p, p.positions[row]);
#pragma unroll
            for (int i = 0; i < MOST; i++) x[i] *= by_position;
        }
        // Every lane has read what it needs of the head before any writes.
        __syncwarp();
        float* out = query ? p.q + ((u64)row * p.heads + head) * p.dim : p.k + ((u64)row * p.kv_heads + kv) * p.dim;
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (place(i) < p.dim) out[place(i)] = x[i];
        if (query) return;
    }
    if (!stored) return;
    if (p.kind == CODES) {
        __syncwarp();
        u8* to = (u8*)(value ? p.values : p.keys) + ((u64)page * p.page_heads + kv) * (CODES_PIECE / PIECE) * p.padded;
        const float* of = value ? source : p.k + ((u64)row * p.kv_heads + kv) * p.dim;
        return store_codes_of(to, of, slot == 0 ? of : nullptr, slot, p.dim, p.padded, value);
    }
    u64 block = ((u64)page * p.page_heads + kv) * PAGE * p.padded;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        int j = place(i);
        if (j >= p.padded) continue;
        const u64 at = block + (value || p.kind == FLOATS ? float_at(slot, j) : half_key_at(slot, j, p.padded));
        if (p.kind == FLOATS) ((float*)(value ? p.values : p.keys))[at] = x[i];
        // Never infinite, nor NaN: masked tokens are multiplied with 0.
        else ((__half*)(value ? p.values : p.keys))[at] = __float2half_rn(fminf(fmaxf(x[i], -65504.f), 65504.f));
    }
}

extern "C" __global__ void rope_store(const __grid_constant__ RopeStore p) { rope_store_of<8, false>(p); }
extern "C" __global__ void rope_store_any(const __grid_constant__ RopeStore p) { rope_store_of<8, true>(p); }
// For heads of more than 256 numbers.
extern "C" __global__ void rope_store_wide(const __grid_constant__ RopeStore p) { rope_store_of<18, true>(p); }
