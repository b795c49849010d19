"""GLM 4 and GLM 4.5."""
from gguf import GGMLQuantizationType as T

from families.parts import attention, embed, experts, layers, rms, rope_of, unembed


def make_glm4(w):
    w.begin(head_dim=32, kv_heads=1, ff=64, keys={"rope.dimension_count": 16})
    for i in range(w.layers):
        w.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        w.attention(i, bias=True)
        w.feed_forward(i, fused=True)
    w.end()


def glm4(model, tokens):
    """arXiv:2406.12793 and transformers' Glm4: norms on both sides; neighbours of a head's first half are rotated."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        attended = layer.linear(attention(rope(q), rope(k), v), "attn_output")
        x = x + layer.rms(attended, "post_attention_norm")
        x = x + layer.rms(layer.feed_forward(layer.rms(x, "ffn_norm")), "post_ffw_norm")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


def make_glm4moe(w, norms, predicting):
    """The last layer predicts a token further on, and is not computed."""
    count, ff = 6, 12
    w.begin(layers=3 + predicting, ff=64, keys={
        "rope.dimension_count": 8, "rope.freq_base": 1e6, "expert_count": count, "expert_used_count": 3,
        "expert_feed_forward_length": ff, "expert_shared_count": 1, "leading_dense_block_count": 1,
        "expert_gating_func": 2, "expert_weights_scale": 1.8, "expert_weights_norm": True,
        "expert_group_count": 1, "expert_group_used_count": 1} | ({"nextn_predict_layers": 1} if predicting else {}))
    for i in range(w.layers):
        w.norms(i, "attn_norm", "post_attention_norm")
        w.attention(i, bias=True, q_norm=w.head_dim if norms else None)
        if i == 0:
            w.feed_forward(i)
        else:
            w.experts(i, count, ff, selection=0.3, router_gain=1.5, gain=2.0)
            w.feed_forward(i, ff, "_shexp")
    if predicting:
        b = f"blk.{w.layers - 1}.nextn"
        w.matrix(f"{b}.eh_proj.weight", w.hidden, 2 * w.hidden)
        w.matrix(f"{b}.embed_tokens.weight", 100, w.hidden)
        w.matrix(f"{b}.shared_head_head.weight", 100, w.hidden)
        for name in "enorm", "hnorm", "shared_head_norm":
            w.norm(f"{b}.{name}.weight", w.hidden)
    w.end()


def glm4moe(model, tokens):
    """arXiv:2508.06471. Experts are chosen by their sigmoid and a bias, and weigh without the bias."""
    x, rope = embed(model, tokens), rope_of(model, tokens, interleaved=False)
    for layer in layers(model, skipped=model.get("nextn_predict_layers", 0)):
        q, k, v = layer.heads(layer.rms(x, "attn_norm"))
        if layer.has("attn_q_norm"):
            q, k = layer.rms(q, "attn_q_norm"), layer.rms(k, "attn_k_norm")
        x = x + layer.linear(attention(rope(q), rope(k), v), "attn_output")
        h = layer.rms(x, "post_attention_norm")
        if layer.index < model.get("leading_dense_block_count"):
            x = x + layer.feed_forward(h)
        else:
            chosen = experts(layer, h, "sigmoid", model.get("expert_weights_norm"), model.get("expert_weights_scale"),
                             layer.weight("exp_probs_b", "bias"))
            x = x + chosen + layer.feed_forward(h, "_shexp")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


MODELS = {
    "glm4-f16": ("glm4", T.F16, make_glm4, glm4),
    "glm4moe-f16": ("glm4moe", T.F16, lambda w: make_glm4moe(w, norms=True, predicting=True), glm4moe),
    "glm4moe-air-f16": ("glm4moe", T.F16, lambda w: make_glm4moe(w, norms=False, predicting=False), glm4moe),
}
