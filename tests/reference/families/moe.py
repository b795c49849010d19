"""Mixtures of experts with ordinary attention: Qwen 2 and 3 MoE, Mixtral, OLMoE, Granite (and its dense kin), gpt-oss,
Phi-3.5 MoE."""
import numpy as np
from gguf import GGMLQuantizationType as T

from families.parts import (attention, embed, experts, layer_norm, layers, rms, rope_of, sigmoid, swiglu_clamped,
                             unembed)
from families.dense import VISION

EXPERTS = {"expert_count": 8, "expert_used_count": 3}


def make_qwen3moe(w, hidden=64, head_dim=32, count=8, ff=16, keys={}):
    w.begin(hidden=hidden, head_dim=head_dim, keys=keys | {
        "expert_count": count, "expert_used_count": 3, "expert_feed_forward_length": ff, "rope.freq_base": 1e6})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.head_dim)
        w.experts(i, count, ff)
    w.end()


def qwen3moe(model, tokens):
    """arXiv:2505.09388. Heads are normalized before they are rotated."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        q, k = rope(layer.rms(q, "attn_q_norm")), rope(layer.rms(k, "attn_k_norm"))
        x = x + layer.linear(attention(q, k, v), "attn_output")
        x = x + experts(layer, layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_mixtral(w, count=4, ff=16):
    w.begin(says_head_dim=False, ff=ff, keys={"expert_count": count, "expert_used_count": 2, "rope.dimension_count": 16,
                                              "rope.freq_base": 1e6})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i)
        w.experts(i, count, ff)
    w.end()


def mixtral(model, tokens):
    """arXiv:2401.04088."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        x = x + experts(layer, layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_qwen2moe(w):
    w.begin(says_head_dim=False, keys=EXPERTS | {"expert_feed_forward_length": 16,
                                                 "expert_shared_feed_forward_length": 40, "rope.freq_base": 1e6})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, bias=True)
        w.experts(i, 8, 16, gain=2.0)
        w.bias(f"blk.{i}.ffn_gate_inp_shexp.weight", w.hidden, deviation=0.25)
        w.feed_forward(i, 40, "_shexp")
    w.end()


def qwen2moe(model, tokens):
    """arXiv:2407.10671. The weights of chosen experts keep their sum; a shared expert has a gate for all it makes."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        h = layer.rms(x, "ffn_norm")
        gate = sigmoid(h @ layer.weight("ffn_gate_inp_shexp"))
        x = x + experts(layer, h, normalize=False) + gate[:, None] * layer.feed_forward(h, "_shexp")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_olmoe(w):
    w.begin(kv_heads=4, says_head_dim=False, keys=EXPERTS, ff=16)
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.hidden)
        w.experts(i, 8, 16, gain=2.0)
    w.end()


def olmoe(model, tokens):
    """arXiv:2409.02060. Queries and keys are normalized over all heads; the weights of experts keep their sum."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        h = layer.rms(x, "attn_norm")
        q, k, v = layer.heads(h, row_norms=True)
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        x = x + experts(layer, layer.rms(x, "ffn_norm"), normalize=False)
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


GRANITE = {"rope.dimension_count": 16, "attention.scale": 0.125, "embedding_scale": 3.0, "residual_scale": 0.6,
           "logit_scale": 0.7}


def make_granitemoe(w, shared=0):
    w.begin(says_head_dim=False, tied=True, ff=16,
            keys=EXPERTS | GRANITE | ({"expert_shared_feed_forward_length": shared} if shared else {}))
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm", mean=2.0)
        w.attention(i)
        w.experts(i, 8, 16)
        if shared:
            w.feed_forward(i, shared, "_shexp")
    w.end()


def make_granite(w):
    w.begin(says_head_dim=False, tied=True, keys=GRANITE)
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm", mean=2.0)
        w.attention(i)
        w.feed_forward(i)
    w.end()


def granite(model, tokens):
    """Granite 3 (github.com/ibm-granite): four multipliers; `logit_scale` divides."""
    x, rope = embed(model, tokens) * model.get("embedding_scale"), rope_of(model, tokens, interleaved=True)
    scale, residual = model.get("attention.scale"), model.get("residual_scale")
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        x = x + residual * layer.linear(attention(rope(q), rope(k), v, scale), "attn_output")
        h = layer.rms(x, "ffn_norm")
        delta = experts(layer, h) if layer.has("ffn_gate_inp") else layer.feed_forward(h)
        if layer.has("ffn_up_shexp"):
            delta = delta + layer.feed_forward(h, "_shexp")
        x = x + residual * delta
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps)) / model.get("logit_scale")


def make_gptoss(w, layers=3, head_dim=32):
    ff = 32
    w.begin(layers=layers, head_dim=head_dim, ff=ff, keys=EXPERTS | {
        "expert_feed_forward_length": ff, "attention.sliding_window": 8, "rope.freq_base": 150000.0,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 32})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "post_attention_norm")
        w.attention(i, bias=True, output_bias=True, ty=T.F16)
        w.bias(f"blk.{i}.attn_sinks.weight", w.heads, deviation=1.0)
        w.experts(i, 8, ff, bias=True, gain=3.0)
    w.end()


def gptoss(model, tokens):
    """arXiv:2508.10925. Every second layer has a window, from the first on; heads have sinks; experts weigh by the
    softmax of the chosen ones' scores."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        window = model.get("attention.sliding_window") if layer.index % 2 == 0 else None
        attended = attention(rope(q), rope(k), v, window=window, sinks=layer.weight("attn_sinks"))
        x = x + layer.linear(attended, "attn_output")
        x = x + experts(layer, layer.rms(x, "post_attention_norm"), "softmax of chosen", False, act=swiglu_clamped)
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_phimoe(w):
    w.begin(says_head_dim=False, ff=16, keys={
        "expert_count": 8, "expert_used_count": 2, "rope.dimension_count": 16, "attention.sliding_window": 131072,
        "rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19})
    for name, most in ("long", 30), ("short", 2.5):
        w.vector(f"rope_factors_{name}.weight", np.geomspace(1.1, most, 8))
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm", bias=True)
        w.attention(i, bias=True, output_bias=True)
        w.experts(i, 8, 16, gain=2.0)
    w.end(norm_bias=True, bias=True)


def phimoe(model, tokens):
    """arXiv:2404.14219, Phi-3.5 MoE: LayerNorm, biases, also of the logits. Experts weigh as llama.cpp has it, by a
    softmax over all; the paper's second expert weighs by a softmax without the first."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.layer_norm(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        x = x + experts(layer, layer.layer_norm(x, "ffn_norm"))
    norm = layer_norm(x, model.tensor("output_norm.weight"), model.tensor("output_norm.bias"), model.eps)
    return unembed(model, norm)


MODELS = {
    "qwen3moe-f16": ("qwen3moe", T.F16, make_qwen3moe, qwen3moe),
    # Rows of 256 for the K-quants; experts' short rows are Q8_0.
    "qwen3moe-q4_k": ("qwen3moe", T.Q4_K, lambda w: make_qwen3moe(w, 256, 16, 5, 32), qwen3moe),
    "mixtral-f32": ("llama", T.F32, make_mixtral, mixtral),
    "mixtral-q4_0": ("llama", T.Q4_0, lambda w: make_mixtral(w, 8, 32), mixtral),
    "qwen2moe-f16": ("qwen2moe", T.F16, make_qwen2moe, qwen2moe),
    "olmoe-f16": ("olmoe", T.F16, make_olmoe, olmoe),
    "granite-f16": ("granite", T.F16, make_granite, granite),
    "granitemoe-f16": ("granitemoe", T.F16, make_granitemoe, granite),
    "granitemoe-shared-f16": ("granitemoe", T.F16, lambda w: make_granitemoe(w, 24), granite),
    "phimoe-f16": ("phimoe", T.F16, make_phimoe, phimoe),
    "qwen3vlmoe-f16": ("qwen3vlmoe", T.F16, lambda w: make_qwen3moe(w, keys=VISION), qwen3moe),
    "gpt-oss-mxfp4": ("gpt-oss", T.MXFP4, make_gptoss, gptoss),
    "gpt-oss-f16": ("gpt-oss", T.F16, lambda w: make_gptoss(w, 2, 16), gptoss),
}
