"""Cohere's: attention and feed-forward side by side, behind one norm."""
from gguf import GGMLQuantizationType as T

from families.parts import attention, embed, layer_norm, layers, rope_of, unembed


def make(w, keys, layers, deep=False):
    """Files with norms of queries and keys are known to llama.cpp by their 64 layers, here weak ones."""
    size = {"hidden": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "ff": 16} if deep else {"ff": 64}
    w.begin(layers=layers, **size, eps="layer_norm_epsilon", says_head_dim=False, tied=True,
            keys={"rope.scaling.type": "none", "logit_scale": 1.5} | keys)
    for i in range(w.layers):
        w.norms(i, "attn_norm", **({"mean": 0.2, "deviation": 0.1} if deep else {}))
        w.attention(i)
        if deep:
            w.vector(f"blk.{i}.attn_q_norm.weight", 1.3 + 0.2 * w.rng.standard_normal((w.heads, w.head_dim)))
            w.vector(f"blk.{i}.attn_k_norm.weight", 1.3 + 0.2 * w.rng.standard_normal((w.kv_heads, w.head_dim)))
        w.feed_forward(i)
    w.end()


def cohere(model, tokens):
    """Command R and R+ (docs.cohere.com), and Command R7B with its windows (arXiv:2504.00698): three layers of four
    have one, and only those are rotated. Norms have no bias; each head has its own norm's weights."""
    window = model.get("attention.sliding_window")
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        h = layer.layer_norm(x, "attn_norm")
        q, k, v = layer.heads(h)
        if layer.has("attn_q_norm"):
            q, k = layer.layer_norm(q, "attn_q_norm"), layer.layer_norm(k, "attn_k_norm")
        sees_all = window and layer.index % 4 == 3
        if not sees_all:
            q, k = rope(q), rope(k)
        attended = attention(q, k, v, window=None if sees_all else window)
        x = x + layer.linear(attended, "attn_output") + layer.feed_forward(h)
    return unembed(model, layer_norm(x, model.tensor("output_norm.weight"), None, model.eps)) * model.get("logit_scale")


COHERE2 = {"attention.sliding_window": 8, "rope.dimension_count": 16, "rope.freq_base": 50000.0}

MODELS = {
    "command-r-f16": ("command-r", T.F16, lambda w: make(w, {"rope.freq_base": 8e6}, 2), cohere),
    "command-r-norms-f16": ("command-r", T.F16, lambda w: make(w, {"rope.freq_base": 75e6}, 64, True), cohere),
    "cohere2-f16": ("cohere2", T.F16, lambda w: make(w, COHERE2, 4), cohere),
}
