"""DeepSeek V2 and V3: keys and values of all heads are made of one short row a token (arXiv:2405.04434, 2412.19437)."""
import numpy as np
from gguf import GGMLQuantizationType as T

import rope
from families.parts import attention, embed, experts, layers, rms, rope_of, unembed

LATENT, PLAIN, ROTATED, VALUE = 32, 16, 8, 16
SHARED = {"expert_feed_forward_length": 16, "leading_dense_block_count": 1, "rope.dimension_count": ROTATED,
          "attention.kv_lora_rank": LATENT, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
          "rope.scaling.original_context_length": 64, "rope.scaling.yarn_beta_fast": 32.0,
          "rope.scaling.yarn_beta_slow": 1.0}
# Files since 2025 say so of the row; older ones have one matrix for keys and values.
SPLIT = {"attention.key_length": LATENT + ROTATED, "attention.value_length": LATENT,
         "attention.key_length_mla": PLAIN + ROTATED, "attention.value_length_mla": VALUE}
WHOLE = {"attention.key_length": PLAIN + ROTATED, "attention.value_length": VALUE}
V2 = SHARED | {"expert_count": 6, "expert_used_count": 2, "expert_shared_count": 2, "expert_weights_scale": 1.0,
               "rope.scaling.yarn_log_multiplier": 0.0707}
# V2's groups compete by their best expert.
GROUPS = {"expert_count": 8, "expert_used_count": 3, "expert_group_count": 4, "expert_group_used_count": 2,
          "attention.q_lora_rank": 48}
V3 = SHARED | {"expert_count": 8, "expert_used_count": 3, "expert_shared_count": 1, "expert_weights_scale": 2.5,
               "expert_weights_norm": True, "expert_gating_func": 2, "expert_group_count": 4,
               "expert_group_used_count": 2, "rope.scaling.yarn_log_multiplier": 0.1, "attention.q_lora_rank": 48}


def make(w, keys, split=True):
    w.begin(layers=3, kv_heads=1 if split else 4, says_head_dim=False, ff=64, keys=keys | (SPLIT if split else WHOLE))
    for i in range(w.layers):
        b = f"blk.{i}"
        w.norms(i, "attn_norm", "ffn_norm")
        queries = w.heads * (PLAIN + ROTATED)
        if rank := keys.get("attention.q_lora_rank"):
            w.linear(f"{b}.attn_q_a", rank, w.hidden)
            w.norm(f"{b}.attn_q_a_norm.weight", rank)
            w.linear(f"{b}.attn_q_b", queries, rank, 1.3)
        else:
            w.linear(f"{b}.attn_q", queries, w.hidden, 1.3)
        w.linear(f"{b}.attn_kv_a_mqa", LATENT + ROTATED, w.hidden, 1.3)
        w.norm(f"{b}.attn_kv_a_norm.weight", LATENT)
        if split:
            w.matrix(f"{b}.attn_k_b.weight", LATENT, PLAIN, 0.9, experts=w.heads)
            w.matrix(f"{b}.attn_v_b.weight", VALUE, LATENT, experts=w.heads)
        else:
            w.linear(f"{b}.attn_kv_b", w.heads * (PLAIN + VALUE), LATENT, 1.3)
        w.linear(f"{b}.attn_output", w.hidden, w.heads * VALUE)
        if i == 0:
            w.feed_forward(i)
        else:
            sigmoid = keys.get("expert_gating_func") == 2
            w.experts(i, keys["expert_count"], 16, selection=0.2 if sigmoid else None, gain=2.0,
                      router_gain=1.5 if sigmoid else 3.0)
            w.feed_forward(i, 16 * keys["expert_shared_count"], "_shexp")
    w.end()


def keys_and_values(layer, latent):
    """What tokens' rows hold of every head, `[tokens, heads, …]`: the part of keys that isn't rotated, and values."""
    if layer.has("attn_kv_b"):
        both = layer.linear(latent, "attn_kv_b").reshape(len(latent), layer.model.heads, -1)
        return np.split(both, [-layer.model.get("attention.value_length")], axis=2)
    return (np.einsum("tc,hck->thk", latent, layer.weight("attn_k_b")),
            np.einsum("tc,hvc->thv", latent, layer.weight("attn_v_b")))


def deepseek(model, tokens):
    """The scale of scores has YaRN's `mscale_all_dim`, squared. Groups of experts compete by their best two, in V2, which has a
    softmax, by their best one."""
    factor, multiplier = model.get("rope.scaling.factor"), rope.yarn_multiplier(model)
    key_length = model.get("attention.key_length_mla", model.get("attention.key_length"))
    scale = (rope.yarn_magnitude(model, factor) * (1 + 0.1 * multiplier * np.log(factor))) ** 2 / np.sqrt(key_length)
    groups = (model.get("expert_group_count"), model.get("expert_group_used_count"))
    gating = {1: "softmax", 2: "sigmoid"}[model.get("expert_gating_func", 1)]
    x, rotate = embed(model, tokens), rope_of(model, tokens, interleaved=True)
    for layer in layers(model):
        h = layer.rms(x, "attn_norm")
        if layer.has("attn_q_a"):
            q = layer.linear(layer.rms(layer.linear(h, "attn_q_a"), "attn_q_a_norm"), "attn_q_b")
        else:
            q = layer.linear(h, "attn_q")
        rotated = model.get("rope.dimension_count")
        q, q_rotated = np.split(q.reshape(len(x), model.heads, -1), [-rotated], axis=2)
        latent, k_rotated = np.split(layer.linear(h, "attn_kv_a_mqa"), [-rotated], axis=1)
        k, v = keys_and_values(layer, layer.rms(latent, "attn_kv_a_norm"))
        # All heads share the rotated part of the key.
        k_rotated = np.repeat(rotate(k_rotated[:, None]), model.heads, axis=1)
        q, k = np.concatenate([q, rotate(q_rotated)], 2), np.concatenate([k, k_rotated], 2)
        x = x + layer.linear(attention(q, k, v, scale), "attn_output")
        h = layer.rms(x, "ffn_norm")
        if layer.index < model.get("leading_dense_block_count"):
            x = x + layer.feed_forward(h)
        else:
            chosen = experts(layer, h, gating, model.get("expert_weights_norm", False),
                             model.get("expert_weights_scale"), layer.weight("exp_probs_b", "bias"),
                             groups if groups[0] else None)
            x = x + chosen + layer.feed_forward(h, "_shexp")
    return unembed(model, rms(x, model.tensor("output_norm.weight"), model.eps))


MODELS = {
    "deepseek2-lite-f16": ("deepseek2", T.F16, lambda w: make(w, V2), deepseek),
    "deepseek2-lite-old-f16": ("deepseek2", T.F16, lambda w: make(w, V2, split=False), deepseek),
    "deepseek2-groups-f16": ("deepseek2", T.F16, lambda w: make(w, V2 | GROUPS), deepseek),
    "deepseek3-f16": ("deepseek2", T.F16, lambda w: make(w, V3), deepseek),
    "deepseek3-old-f16": ("deepseek2", T.F16, lambda w: make(w, V3, split=False), deepseek),
}
