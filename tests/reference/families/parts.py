"""What the families' forward passes are made of. Arrays are `[tokens, ...]`; heads are `[tokens, heads, head_dim]`."""
import numpy as np

import rope
from forward import silu


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (1 if weight is None else weight)


def layer_norm(x, weight, bias, eps):
    x = x - x.mean(-1, keepdims=True)
    return rms(x, weight, eps) + (0 if bias is None else bias)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def swiglu(gate, up):
    return silu(gate) * up


def swiglu_clamped(gate, up, alpha=1.702, limit=7.0):
    """gpt-oss's: the gate is capped from above and `up` from both sides, and `up` counts from -1."""
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate * sigmoid(alpha * gate) * (up + 1)


class Layer:
    """The tensors `blk.N.*` of one layer."""

    def __init__(self, model, index):
        self.model, self.index = model, index

    def has(self, name):
        return f"blk.{self.index}.{name}.weight" in self.model.tensors

    def weight(self, name, kind="weight"):
        return self.model.tensor(f"blk.{self.index}.{name}.{kind}")

    def linear(self, x, name):
        return self.model.product(x, f"blk.{self.index}.{name}")

    def rms(self, x, name):
        return rms(x, self.weight(name), self.model.eps)

    def layer_norm(self, x, name):
        return layer_norm(x, self.weight(name), self.weight(name, "bias"), self.model.eps)

    def heads(self, x, row_norms=False):
        """Queries, keys and values, from three products or from one; `row_norms` normalize over all heads."""
        m = self.model
        if self.has("attn_qkv"):
            sizes = [m.heads * m.head_dim, (m.heads + m.kv_heads) * m.head_dim]
            q, k, v = np.split(self.linear(x, "attn_qkv"), sizes, axis=1)
        else:
            q, k, v = (self.linear(x, f"attn_{part}") for part in "qkv")
        if row_norms:
            q, k = self.rms(q, "attn_q_norm"), self.rms(k, "attn_k_norm")
        return (a.reshape(len(x), -1, m.head_dim) for a in (q, k, v))

    def feed_forward(self, x, kind="", act=swiglu):
        """A gated feed-forward network; the gate is the first half of `ffn_up` where it has no tensor of its own.
        `kind` is the end of the names of a shared expert's tensors."""
        if self.has(f"ffn_gate{kind}"):
            gate, up = self.linear(x, f"ffn_gate{kind}"), self.linear(x, f"ffn_up{kind}")
        else:
            gate, up = np.split(self.linear(x, f"ffn_up{kind}"), 2, axis=1)
        return self.linear(act(gate, up), f"ffn_down{kind}")

    def expert(self, x, name, index):
        """The product of `x` with one matrix of `ffn_NAME_exps`."""
        name = f"blk.{self.index}.ffn_{name}_exps"
        y = self.model.rounding(x, name) @ self.model.tensor(f"{name}.weight")[index].T
        bias = self.model.tensor(f"{name}.bias")
        return y if bias is None else y + bias[index]


def layers(model, skipped=0):
    """All layers but the last `skipped`, which predict tokens further on and take no part."""
    return [Layer(model, i) for i in range(model.layers - skipped)]


def embed(model, tokens):
    return model.tensor("token_embd.weight")[np.asarray(tokens)]


def unembed(model, x):
    """Logits, from the embeddings where there is no matrix for it."""
    return model.product(x, "output" if "output.weight" in model.tensors else "token_embd")


def rope_of(model, tokens, interleaved, **how):
    """The rotation of heads by their positions."""
    angles, magnitude = rope.angles(model, np.arange(len(tokens), dtype=np.float64), **how)
    return lambda x: rope.rotate(x, angles, magnitude, interleaved)


def attention(q, k, v, scale=None, window=None, chunk=None, sinks=None):
    """Causal attention, `[tokens, heads * length of values]`. A token sees `window` tokens, itself included, or those
    of its own `chunk`. `sinks` are scores, one a head, of a token that has no value."""
    tokens, group = len(q), q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    at = np.arange(tokens)
    seen = at[:, None] >= at[None, :]
    if window:
        seen &= at[:, None] - at[None, :] < window
    if chunk:
        seen &= at[:, None] // chunk == at[None, :] // chunk
    scores = np.where(seen, scores, -np.inf)
    if sinks is not None:
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))], -1)
    weights = softmax(scores)[..., :tokens]
    return np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1)


def route(model, logits, gating, normalize, scale, selection, groups):
    """The chosen experts of each token and their weights, both `[tokens, used]`."""
    used = model.get("expert_used_count")
    weights = {"softmax": softmax, "sigmoid": sigmoid, "softmax of chosen": lambda x: x}[gating](logits)
    # What experts are compared by. Logits are in the same order, and their distances say how safe a choice is.
    best_of_group = groups and gating == "softmax"
    scores = logits if selection is None and (not groups or best_of_group) else weights
    if selection is not None:
        scores = scores + selection
    if groups:
        count, kept = groups
        by_group = scores.reshape(len(scores), count, -1)
        of_group = np.sort(by_group, -1)[..., -1 if best_of_group else -2:].sum(-1)
        order = np.sort(of_group, -1)
        model.margins.append((order[:, -kept] - order[:, -kept - 1]).min())
        scores = np.where((of_group >= order[:, [-kept]])[..., None], by_group, -np.inf).reshape(scores.shape)
    chosen = np.argsort(-scores, axis=-1, kind="stable")[:, :used + 1]
    if used < scores.shape[1]:
        last, next_one = np.take_along_axis(scores, chosen[:, -2:], 1).T
        model.margins.append((last - next_one).min())
    chosen = chosen[:, :used]
    model.chosen.append(np.sort(chosen))
    weights = np.take_along_axis(weights, chosen, 1)
    if gating == "softmax of chosen":
        weights = softmax(weights)
    if normalize:
        weights = weights / weights.sum(-1, keepdims=True)
    return chosen, weights * scale


def experts(layer, x, gating="softmax", normalize=True, scale=1.0, selection=None, groups=None, act=swiglu,
            weigh_input=False):
    """The sum of what the chosen experts make of `x`, by their weights: of the result, or of what goes in."""
    model = layer.model
    chosen, weights = route(model, layer.linear(x, "ffn_gate_inp"), gating, normalize, scale, selection, groups)
    out = np.zeros_like(x)
    for index in np.unique(chosen):
        rows, place = np.nonzero(chosen == index)
        weight = weights[rows, place][:, None]
        inner = x[rows] * weight if weigh_input else x[rows]
        gate, up = layer.expert(inner, "gate", index), layer.expert(inner, "up", index)
        result = layer.expert(act(gate, up), "down", index)
        out[rows] += result if weigh_input else weight * result
    return out
