// The activations of feed-forward networks, for every kernel that has one.
#pragma once

#include "common.cuh"

// In the order of the host's list; see `Activation`.
enum Gate { SILU, GELU_TANH, GELU, RELU_SQUARED, SIGMOID, CLAMPED_SWIGLU };

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.f + expf(-x)); }
__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// activation(gate) · up. Without a gate, `up` is 1 and the gate is what the activation is of. NaN stays NaN.
// `alpha` and `limit` are the clamped SwiGLU's.
__device__ __forceinline__ float activate(int kind, float gate, float up, float alpha, float limit) {
    switch (kind) {
        case SILU: return silu(gate) * up;
        case GELU_TANH: return gelu_tanh(gate) * up;
        // By erfc, which keeps its relative precision far below zero.
        case GELU: return 0.5f * gate * erfcf(-0.7071067812f * gate) * up;
        case RELU_SQUARED: {
            float x = gate < 0.f ? 0.f : gate;
            return x * x * up;
        }
        case SIGMOID: return sigmoid(gate) * up;
        default: {
            float g = gate > limit ? limit : gate;
            float u = up > limit ? limit : up < -limit ? -limit : up;
            return g * sigmoid(alpha * g) * (u + 1.f);
        }
    }
}
