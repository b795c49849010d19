"""Families whose scores grow with the position: Llama 4 (text) and Ministral 3."""
import numpy as np
from gguf import GGMLQuantizationType as T

from families.parts import attention, embed, experts, layers, rms, rope_of, unembed


def temperature(tokens, length, scale, offset):
    """A factor on queries, `[tokens, 1, 1]`: one more step of a logarithm for every `length` positions."""
    steps = np.floor((np.arange(len(tokens)) + offset) / length)
    return (1 + scale * np.log(steps + 1))[:, None, None]


def make_llama4(w, keys={}):
    count, ff = 4, 16
    w.begin(layers=4, ff=48, keys=keys | {
        "rope.dimension_count": 16, "rope.freq_base": 500000.0, "expert_count": count, "expert_used_count": 1,
        "expert_feed_forward_length": ff, "interleave_moe_layer_step": 2})
    w.vector("rope_freqs.weight", np.geomspace(1, 8, 8))
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i)
        if i % 2 == 0:
            w.feed_forward(i)
        else:
            w.experts(i, count, ff, gain=2.0)
            w.feed_forward(i, ff, "_shexp")
    w.end()


def llama4(model, tokens):
    """github.com/meta-llama/llama-models, llama4: three layers of four see a chunk, are rotated and then normalized
    without weights; the fourth is not, and has the temperature. Experts get an input that is already weighed by the
    sigmoid. No file has the chunk's length, which is 8192; ours does, to be crossed."""
    chunk = model.get("attention.sliding_window", 8192)
    heat = temperature(tokens, model.get("attention.temperature_length", 8192), 0.1, offset=1)
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        sees_all = layer.index % 4 == 3
        if sees_all:
            q = q * heat
        else:
            q, k = (rms(rope(a), None, model.eps) for a in (q, k))
        x = x + layer.linear(attention(q, k, v, chunk=None if sees_all else chunk), "attn_output")
        h = layer.rms(x, "ffn_norm")
        if (layer.index + 1) % model.get("interleave_moe_layer_step"):
            x = x + layer.feed_forward(h)
        else:
            x = x + experts(layer, h, "sigmoid", False, weigh_input=True) + layer.feed_forward(h, "_shexp")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_ministral3(w):
    w.begin(head_dim=32, kv_heads=1, tied=True, ff=64, keys={
        "rope.dimension_count": 32, "rope.freq_base": 1e6, "rope.scaling.type": "yarn", "rope.scaling.factor": 16.0,
        "rope.scaling.original_context_length": 16, "rope.scaling.yarn_beta_fast": 4.0,
        "rope.scaling.yarn_beta_slow": 1.0, "rope.scaling.yarn_log_multiplier": 1.0,
        "attention.temperature_scale": 0.1})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i)
        w.feed_forward(i)
    w.end()


def ministral3(model, tokens):
    """arXiv:2601.08584: Llama with YaRN and the temperature, whose step is YaRN's original context."""
    heat = temperature(tokens, model.get("rope.scaling.original_context_length"),
                       model.get("attention.temperature_scale"), offset=0)
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q) * heat, rope(k), v), "attn_output")
        x = x + layer.feed_forward(layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


MODELS = {
    "llama4-f16": ("llama4", T.F16, make_llama4, llama4),
    "llama4-chunks-f16": ("llama4", T.F16, lambda w: make_llama4(w, {
        "attention.sliding_window": 16, "attention.temperature_length": 16}), llama4),
    "ministral3-f16": ("mistral3", T.F16, make_ministral3, ministral3),
}
