"""Families without experts: OLMo 2 and 3, SmolLM 3, EXAONE 4, Qwen 3 VL (text), StarCoder 2, Phi-4 mini, Hunyuan, ERNIE
4.5, Seed-OSS; Qwen 3 with layers of different shapes."""
import numpy as np
from gguf import GGMLQuantizationType as T

import forward
from families.parts import attention, embed, layer_norm, layers, rms, rope_of, unembed


def make_olmo2(w, kv_heads=4, keys={}):
    w.begin(layers=4 if keys else 2, kv_heads=kv_heads, says_head_dim=False, ff=64, keys=keys)
    for i in range(w.layers):
        w.attention(i, q_norm=w.hidden, k_norm=w.kv_heads * w.head_dim)
        w.norms(i, "post_attention_norm", "post_ffw_norm")
        w.feed_forward(i)
    w.end()


OLMO3 = {"attention.sliding_window": 8, "attention.sliding_window_pattern": [True, True, True, False],
         "rope.freq_base": 500000.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
         "rope.scaling.original_context_length": 128, "rope.scaling.yarn_beta_fast": 32.0,
         "rope.scaling.yarn_beta_slow": 1.0}


def olmo2(model, tokens):
    """arXiv:2501.00656 and arXiv:2512.13961: norms only behind what they belong to, and over whole rows of queries and
    keys. OLMo 3 has windows, whose layers rotate by unscaled angles."""
    pattern = model.get("attention.sliding_window_pattern", [False] * model.layers)
    x = embed(model, tokens)
    for layer, windowed in zip(layers(model), pattern):
        rope = rope_of(model, tokens, interleaved=False, scaled=not windowed)
        window = model.get("attention.sliding_window") if windowed else None
        q, k, v = layer.heads(x, row_norms=True)
        attended = layer.linear(attention(rope(q), rope(k), v, window=window), "attn_output")
        x = x + layer.rms(attended, "post_attention_norm")
        x = x + layer.rms(layer.feed_forward(x), "post_ffw_norm")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_smollm3(w):
    w.begin(layers=4, says_head_dim=False, tied=True, ff=64, keys={"rope.dimension_count": 16, "rope.freq_base": 5e6})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i)
        w.feed_forward(i)
    w.end()


def smollm3(model, tokens):
    """huggingface.co/blog/smollm3: Llama with every fourth layer unrotated."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        if layer.index % 4 != 3:
            q, k = rope(q), rope(k)
        x = x + layer.linear(attention(q, k, v), "attn_output")
        x = x + layer.feed_forward(layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_exaone4(w, deep=False):
    """The smaller model sees everything and has factors for rope; the larger one, known to llama.cpp by its 64 layers,
    has windows. Weak layers keep that many from being chaos."""
    size = {"layers": 64, "hidden": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "ff": 16} if deep else {"layers": 3}
    window = {"attention.sliding_window": 8, "attention.sliding_window_pattern": [i % 4 != 3 for i in range(64)]}
    w.begin(**size, tied=not deep, keys=(window if deep else {}) | {"rope.freq_base": 1e6})
    if not deep:
        w.vector("rope_freqs.weight", np.geomspace(1, 16, w.head_dim // 2))
    for i in range(w.layers):
        w.attention(i, q_norm=w.head_dim)
        w.norms(i, "post_attention_norm", "post_ffw_norm", **({"mean": 0.15, "deviation": 0.05} if deep else {}))
        w.feed_forward(i)
    w.end()


def exaone4(model, tokens):
    """arXiv:2507.11407: norms behind attention and feed-forward; layers without a window are unrotated if others have
    one."""
    window = model.get("attention.sliding_window")
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        windowed = window and model.get("attention.sliding_window_pattern")[layer.index]
        q, k, v = layer.heads(x)
        q, k = layer.rms(q, "attn_q_norm"), layer.rms(k, "attn_k_norm")
        if windowed or not window:
            q, k = rope(q), rope(k)
        attended = layer.linear(attention(q, k, v, window=window if windowed else None), "attn_output")
        x = x + layer.rms(attended, "post_attention_norm")
        x = x + layer.rms(layer.feed_forward(x), "post_ffw_norm")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


# Positions of an image's tokens are three; those of text are equal, so the sections make no difference to it.
VISION = {"rope.dimension_sections": [3, 3, 2, 0], "n_deepstack_layers": 1, "rope.freq_base": 5e6}


def make_qwen3vl(w):
    w.begin(tied=True, keys=VISION)
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.head_dim)
        w.feed_forward(i)
    w.end()


def qwen3vl(model, tokens):
    """arXiv:2511.21631; for text the same as Qwen 3."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        q, k = rope(layer.rms(q, "attn_q_norm")), rope(layer.rms(k, "attn_k_norm"))
        x = x + layer.linear(attention(q, k, v), "attn_output")
        x = x + layer.feed_forward(layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_starcoder2(w):
    w.begin(eps="layer_norm_epsilon", says_head_dim=False, ff=128, keys={"rope.freq_base": 100000.0})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm", bias=True)
        w.attention(i, bias=True, output_bias=True)
        w.linear(f"blk.{i}.ffn_up", w.ff, w.hidden, 2.0, bias=True)
        w.linear(f"blk.{i}.ffn_down", w.hidden, w.ff, 1.5, bias=True)
    w.end(norm_bias=True)


def starcoder2(model, tokens):
    """arXiv:2402.19173. (The smaller ones' window is not in their files.)"""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.layer_norm(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        h = layer.linear(layer.layer_norm(x, "ffn_norm"), "ffn_up")
        x = x + layer.linear(forward.gelu_tanh(h), "ffn_down")
    x = layer_norm(x, model.tensor("output_norm.weight"), model.tensor("output_norm.bias"), model.eps)
    return unembed(model, x)


def make_phi4(w):
    """As Phi-4 mini's files are: tied, rotating three quarters of a head, a window beyond the context."""
    w.begin(says_head_dim=False, tied=True, keys={
        "rope.dimension_count": 12, "rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19,
        "attention.sliding_window": 262144})
    for name, most in ("long", 30), ("short", 2.5):
        w.vector(f"rope_factors_{name}.weight", np.geomspace(1.1, most, 6))
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, fused=True)
        w.feed_forward(i, fused=True)
    w.end()


def phi3(model, tokens):
    return forward.forward(model, [tokens])[0]


def make_hunyuan(w):
    w.begin(tied=True, keys={"rope.freq_base": 11158840.0, "rope.scaling.type": "none", "rope.scaling.factor": 1.0})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.head_dim)
        w.feed_forward(i)
    w.end()


def hunyuan(model, tokens):
    """github.com/Tencent-Hunyuan: Qwen 3 but for heads being normalized after they are rotated."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        q, k = layer.rms(rope(q), "attn_q_norm"), layer.rms(rope(k), "attn_k_norm")
        x = x + layer.linear(attention(q, k, v), "attn_output")
        x = x + layer.feed_forward(layer.rms(x, "ffn_norm"))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_llama_kin(w, norms=("attn_norm", "ffn_norm"), bias=False, tied=False):
    w.begin(head_dim=32, tied=tied, keys={"rope.freq_base": 500000.0})
    for i in range(w.layers):
        w.norms(i, *norms)
        w.attention(i, bias=bias)
        w.feed_forward(i)
    w.end()


def llama_kin(model, tokens, interleaved, ffn_norm="ffn_norm"):
    """ERNIE 4.5 (yiyan.baidu.com) and Seed-OSS (github.com/ByteDance-Seed)."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        x = x + layer.feed_forward(layer.rms(x, ffn_norm))
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_qwen3_varied(w):
    """Heads and feed-forward differ from layer to layer, as in pruned models; llama.cpp's qwen3 takes the first's."""
    heads, kv_heads, ff = [4, 2, 4], [2, 2, 1], [96, 48, 64]
    w.begin(layers=3, heads=heads, kv_heads=kv_heads, ff=ff, tied=True, keys={"rope.freq_base": 1e6})
    for i in range(w.layers):
        w.heads, w.kv_heads = heads[i], kv_heads[i]
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.head_dim)
        w.feed_forward(i, ff[i])
    w.end()


MODELS = {
    "olmo2-f16": ("olmo2", T.F16, lambda w: make_olmo2(w, 2), olmo2),
    "olmo3-f16": ("olmo2", T.F16, lambda w: make_olmo2(w, keys=OLMO3), olmo2),
    "smollm3-f16": ("smollm3", T.F16, make_smollm3, smollm3),
    "exaone4-f16": ("exaone4", T.F16, make_exaone4, exaone4),
    "exaone4-window-f16": ("exaone4", T.F16, lambda w: make_exaone4(w, deep=True), exaone4),
    "qwen3vl-f16": ("qwen3vl", T.F16, make_qwen3vl, qwen3vl),
    "starcoder2-f16": ("starcoder2", T.F16, make_starcoder2, starcoder2),
    "phi4-mini-f16": ("phi3", T.F16, make_phi4, phi3),
    "hunyuan-f16": ("hunyuan-dense", T.F16, make_hunyuan, hunyuan),
    "ernie4.5-f16": ("ernie4_5", T.F16, lambda w: make_llama_kin(w, tied=True), lambda m, t: llama_kin(m, t, True)),
    "seed-oss-f16": ("seed_oss", T.F16,
                     lambda w: make_llama_kin(w, ("attn_norm", "post_attention_norm"), bias=True),
                     lambda m, t: llama_kin(m, t, False, "post_attention_norm")),
    "qwen3-varied-f16": ("qwen3", T.F16, make_qwen3_varied, qwen3vl),
}
