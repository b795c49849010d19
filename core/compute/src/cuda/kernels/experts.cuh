// What the kernels of a mixture of experts share: the table of the rows that each expert has.
//
// A row and an expert that it chose are a *pair*. Pairs that have one expert lie together, each at a *place*: the rows of the
// experts' inputs and outputs are in the order of places. The places of an expert are cut into *segments*, the rows that a block of
// threads takes at once. Everything is counted out on the GPU; the host knows only how many segments there are at most.
#pragma once

#include "common.cuh"

// Most experts, and most that a row uses.
constexpr int MOST_EXPERTS = 512;
constexpr int MOST_USED = 32;

struct Segment {
    int expert;
    int first;  // place
    int count;
    int unused;
};

struct Table {
    int* count;          // of segments
    Segment* segments;
    int* row_of;         // [places]
    float* weight_of;    // [places]
    int* place_of;       // [rows * used]
    int* chosen;         // [rows * used], of a row by the experts' numbers
    float* weights;      // [rows * used]
};

// What a product with experts does with its sums.
enum Mode {
    PLAIN,    // keeps them
    UNGATED,  // the activation of them
    GATED,    // those of two matrices are gate and up
};
