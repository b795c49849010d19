// Products in which each segment of rows has a matrix of its own, for few rows and for many.
//
// A warp always has two tiles of 16 outputs, its *unit*: the same outputs of gate and up, whose results meet in registers, or two
// neighbours of one matrix.
#pragma once

#include "experts.cuh"
#include "gates.cuh"
#include "jobs.cuh"

struct Grouped {
    // Gates and ups, or one matrix twice.
    const u8* weight[2];
    // [experts, outputs], or null.
    const float* bias[2];
    float* out;
    // Bytes of one expert's matrix.
    u64 expert_bytes;
    u64 tile_row_bytes;
    Forms x;
    // Null where the host knows it: there are `most`.
    const int* count;
    const Segment* segments;
    // Rows of the input and of the output by place; null where they are in the order of places, `share` of them on each row of the
    // input.
    const int* rows_of;
    const int* outs_of;
    // What sums are multiplied with, by place; null for 1.
    const float* weights;
    float factor[2];
    float alpha;
    float limit;
    int most;
    int share;
    int outputs;
    // Units of a matrix.
    int units;
    int mode;
    int gate;
    // For few rows, chunks whose sums shared memory holds.
    int round;
};

__device__ __forceinline__ int segments_of(const Grouped& p) { return p.count ? *p.count : p.most; }

// A unit of a segment.
struct Unit {
    int expert, first, count, unit;

    __device__ __forceinline__ Unit(const Segment& s, int unit) : expert(s.expert), first(s.first), count(s.count), unit(unit) {}
    // The place of row `i`; past the last it is a copy of it.
    __device__ __forceinline__ int place(int i) const { return first + min(i, count - 1); }
    __device__ __forceinline__ int row(const Grouped& p, int i) const { return p.rows_of ? p.rows_of[place(i)] : place(i) / p.share; }

    // Past the last tile it is a copy of it.
    static __device__ __forceinline__ int tile_of(const Grouped& p, int unit, int m) {
        return min(p.mode == GATED ? unit : 2 * unit + m, (p.outputs - 1) / TILE);
    }
    template <class F>
    __device__ __forceinline__ void load(const Grouped& p, int chunk, Planes<F> (&planes)[2], TileScales<F> (&scales)[2]) const {
        const int lane = threadIdx.x % 32, quarters = quarters_of(p.x, chunk);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const u8* at = p.weight[m] + (u64)expert * p.expert_bytes +
                           tile_at<F>(tile_of(p, unit, m), chunk, quarters, p.tile_row_bytes);
            planes[m].load(at, lane, quarters);
            scales[m].load(at, lane, quarters);
        }
    }

    __device__ __forceinline__ float biased(const Grouped& p, int m, int place, int output, float total) const {
        float value = __fmul_rn(total, p.factor[m]);
        if (p.weights) value = __fmul_rn(value, p.weights[place]);
        if (p.bias[m]) value = __fadd_rn(value, p.bias[m][(u64)expert * p.outputs + output]);
        return value;
    }
    __device__ __forceinline__ float* out(const Grouped& p, int place, int output) const {
        return p.out + (u64)(p.outs_of ? p.outs_of[place] : place) * p.outputs + output;
    }
    // On a whole warp, which has the sums of row `i`: of gate and then of up, or of neighbours.
    __device__ __forceinline__ void finish(const Grouped& p, int i, float total) const {
        const int lane = threadIdx.x % 32, place = first + i;
        if (p.mode == GATED) {
            const int output = unit * TILE + lane;
            float up = __shfl_down_sync(~0u, total, 16);
            if (lane >= TILE || output >= p.outputs) return;
            float gate = biased(p, 0, place, output, total);
            up = biased(p, 1, place, output, up);
            *out(p, place, output) = activate(p.gate, gate, up, p.alpha, p.limit);
        } else {
            finish_plain(p, i, unit * 2 * TILE + lane, total);
        }
    }
    __device__ __forceinline__ void finish_plain(const Grouped& p, int i, int output, float total) const {
        if (output >= p.outputs) return;
        float value = biased(p, 0, first + i, output, total);
        *out(p, first + i, output) = p.mode == UNGATED ? activate(p.gate, value, 1.f, p.alpha, p.limit) : value;
    }
};
