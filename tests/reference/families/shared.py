"""Layers of experts beside a shared one, behind dense layers: dots.llm1, Ling 2, ERNIE 4.5."""
from gguf import GGMLQuantizationType as T

from families.parts import attention, embed, experts, layers, rms, rope_of, unembed

COMMON = {"expert_count": 8, "expert_used_count": 3, "expert_feed_forward_length": 16, "expert_shared_count": 1,
          "leading_dense_block_count": 1}
WEIGHED = {"expert_gating_func": 2, "expert_weights_scale": 2.5, "expert_weights_norm": True}
DOTS1 = COMMON | WEIGHED | {"expert_count": 6, "expert_shared_count": 2, "rope.freq_base": 1e7}
LING2 = COMMON | WEIGHED | {"expert_shared_feed_forward_length": 16, "expert_group_count": 4,
                            "expert_group_used_count": 2, "rope.dimension_count": 8, "rope.freq_base": 6e5}
ERNIE = COMMON | {"expert_shared_feed_forward_length": 32, "interleave_moe_layer_step": 1, "rope.freq_base": 5e5}


def make(w, keys, shared, kv_heads=2, norms=True, fused=False, tied=False, selection=0.2, router_gain=1.5):
    w.begin(layers=3, kv_heads=kv_heads, ff=64, keys=keys, tied=tied)
    for i in range(w.layers):
        w.norms(i, "attn_norm", "ffn_norm")
        w.attention(i, q_norm=w.head_dim if norms else None, fused=fused)
        if i < keys["leading_dense_block_count"]:
            w.feed_forward(i)
        else:
            w.experts(i, keys["expert_count"], 16, selection=selection, router_gain=router_gain, gain=2.0)
            w.feed_forward(i, shared, "_shexp")
    w.end()


def expert_layers(model, tokens, interleaved=False, how=None):
    """arXiv:2506.05767, arXiv:2510.22115. `how` experts are chosen and weighed: by the file, or always the same."""
    groups = model.get("expert_group_count", 0)
    how = how or {"gating": "sigmoid", "normalize": model.get("expert_weights_norm"),
                  "scale": model.get("expert_weights_scale"),
                  "groups": (groups, model.get("expert_group_used_count")) if groups else None}
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        if layer.has("attn_q_norm"):
            q, k = layer.rms(q, "attn_q_norm"), layer.rms(k, "attn_k_norm")
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        h = layer.rms(x, "ffn_norm")
        if layer.index < model.get("leading_dense_block_count"):
            x = x + layer.feed_forward(h)
        else:
            chosen = experts(layer, h, selection=layer.weight("exp_probs_b", "bias"), **how)
            x = x + chosen + layer.feed_forward(h, "_shexp")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def ernie(model, tokens):
    """ERNIE 4.5's technical report (yiyan.baidu.com): a bias on the softmax of all experts' scores."""
    return expert_layers(model, tokens, interleaved=True, how={"gating": "softmax", "normalize": True})


MODELS = {
    "dots1-f16": ("dots1", T.F16, lambda w: make(w, DOTS1, 32, kv_heads=4), expert_layers),
    "ling2-f16": ("bailingmoe2", T.F16, lambda w: make(w, LING2, 16, fused=True), expert_layers),
    "ernie4.5-moe-f16": ("ernie4_5-moe", T.F16, lambda w: make(
        w, ERNIE, 32, norms=False, tied=True, selection=0.15, router_gain=2.0), ernie),
}
