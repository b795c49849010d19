"""A forward pass in float64 over a GGUF file's weights, to judge faster ones by.

Written from the papers and from what llama.cpp makes of the metadata, for clarity and not for speed; it shares no
code with the Rust crates. Arrays are `[tokens, ...]`; weight matrices are `[outputs, inputs]`.
"""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFReader
from gguf.quants import dequantize

import rope

# The gguf package does not know the newest type yet.
if 42 not in T._value2member_map_:
    Q2_0 = int.__new__(T, 42)
    Q2_0._name_, Q2_0._value_ = "Q2_0", 42
    T._member_map_["Q2_0"] = T._value2member_map_[42] = Q2_0
    type.__setattr__(T, "Q2_0", Q2_0)
    GGML_QUANT_SIZES[Q2_0] = (64, 18)


def floats(tensor):
    """A tensor's weights, `[..., inputs]`. What a block decodes to is defined in float32."""
    data = np.asarray(tensor.data)
    shape = tuple(int(n) for n in reversed(tensor.shape))
    if tensor.tensor_type == T.Q8_K:  # the gguf package lacks it: a float32 scale, 256 signed bytes, 16 int16 sums
        blocks = data.reshape(-1, 292)
        scale = blocks[:, :4].copy().view(np.float32)
        values = scale * blocks[:, 4:260].copy().view(np.int8)
    elif tensor.tensor_type == T.Q1_0:  # the package knows only its size: a float16 scale and 128 signs
        blocks = data.reshape(-1, 18)
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        values = np.where(np.unpackbits(blocks[:, 2:], axis=1, bitorder="little") == 1, scale, -scale)
    elif tensor.tensor_type == T.Q2_0:  # a float16 scale and 64 codes of 2 bits, from -1 to 2
        blocks = data.reshape(-1, 18)
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        codes = blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
        values = (codes.reshape(-1, 64).astype(np.float32) - 1) * scale
    elif tensor.tensor_type == T.F16:
        values = data.view(np.float16)
    else:
        values = dequantize(data, tensor.tensor_type)
    return values.reshape(shape).astype(np.float64)


# Columns that share a scale when a CPU rounds the other side of a product to 8 bits, as llama.cpp and Realm do for
# matrices of these types. The other types take part as floats.
INT8_BLOCK = {**dict.fromkeys([T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.IQ4_NL, T.MXFP4, T.NVFP4, T.Q1_0,
                              T.Q2_0], 32),
              **dict.fromkeys([T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_XS, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S,
                              T.IQ3_XXS, T.IQ3_S, T.IQ1_S, T.IQ1_M, T.TQ1_0, T.TQ2_0], 256)}


def round_to_int8(x, block):
    """What is left of `x` as signed bytes with one scale for `block` columns."""
    blocks = x.reshape(len(x), -1, block)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    scale[scale == 0] = 1
    return (np.rint(blocks / scale) * scale).reshape(x.shape)


class Model:
    """A file's metadata and tensors. With `int8`, products see their input rounded to 8 bits: everything else being
    exact, that tells what a kernel may lose from what it must not."""

    def __init__(self, path, int8=False):
        self.int8 = int8
        reader = GGUFReader(path)
        self.tensors = {t.name: t for t in reader.tensors}
        # Vocabularies are large and not needed.
        self.meta = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer.")}
        self.arch = self.meta["general.architecture"]
        self.layers = self.get("block_count")
        self.hidden = self.get("embedding_length")
        self.heads = self.get("attention.head_count")
        self.kv_heads = self.get("attention.head_count_kv", self.heads)
        self.head_dim = self.get("attention.key_length") or self.hidden // self.heads
        self.eps = self.get("attention.layer_norm_rms_epsilon") or self.get("attention.layer_norm_epsilon")
        # Of each router the experts that it chose, sorted, and how much the last had over the next, at the closest.
        self.chosen, self.margins = [], []
        # Whether any product rounded.
        self.rounded = False
        self.gemma = self.arch in ("gemma2", "gemma3")

    def get(self, key, default=None):
        return self.meta.get(f"{self.arch}.{key}", default)

    def tensor(self, name):
        return floats(self.tensors[name]) if name in self.tensors else None

    def rounding(self, x, name):
        """What a product with the matrices `name` sees of `x`."""
        block = INT8_BLOCK.get(self.tensors[f"{name}.weight"].tensor_type)
        if not self.int8 or not block:
            return x
        self.rounded = True
        return round_to_int8(x, block)

    def product(self, x, name):
        """`x @ w.T + b`, `[tokens, outputs]`."""
        y, bias = self.rounding(x, name) @ self.tensor(f"{name}.weight").T, self.tensor(f"{name}.bias")
        return y if bias is None else y + bias

    def window(self, layer):
        """The sliding window of a layer, in tokens, or None.

        Gemma 2 (arXiv:2408.00118) has one in every second layer, Gemma 3 (arXiv:2503.19786) in five of six, both
        from the first layer on. Others have one in every layer or none at all.
        """
        size = self.get("attention.sliding_window", 4096 if self.arch == "gemma2" else None)
        period = {"gemma2": 2, "gemma3": 6}.get(self.arch)
        if not size or (period and layer % period == period - 1):
            return None
        return size


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def soft_cap(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rope_angles(model, layer, positions):
    """The angle of every pair, `[tokens, pairs]`, and the factor on cosine and sine."""
    if model.arch == "gemma3" and model.window(layer):
        return rope.angles(model, positions, model.get("rope.freq_base_swa", 10000.0), scaled=False)
    return rope.angles(model, positions)


def rotate(model, x, angles, magnitude):
    # Files of the llama architecture have their rows permuted so that neighbours make a pair.
    return rope.rotate(x, angles, magnitude, interleaved=model.arch == "llama")


def attend(model, layer, q, k, v, scale):
    """Causal attention of one sequence: `q` `[tokens, heads, head_dim]`, `k` and `v` with fewer heads."""
    tokens, group = len(q), model.heads // model.kv_heads
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    cap = model.get("attn_logit_softcapping", 50.0 if model.arch == "gemma2" else None)
    scores = soft_cap(np.einsum("qhd,khd->hqk", q, k) * scale, cap)
    distance = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
    seen = distance >= 0
    if model.window(layer):
        seen &= distance < model.window(layer)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1)


def attention_scale(model):
    # The largest Gemmas divide by the root of the hidden size a head instead of the head's own.
    largest = {"gemma2": 46, "gemma3": 62}.get(model.arch) == model.layers
    return model.get("attention.scale") or 1 / np.sqrt(model.hidden / model.heads if largest else model.head_dim)


def forward(model, sequences, skip=0):
    """Logits `[tokens - skip, vocab]` for each of `sequences`. Every weight is decoded once for all of them."""
    if np.isscalar(skip):
        skip = [skip] * len(sequences)
    lengths = [len(s) for s in sequences]
    ends = np.cumsum(lengths)
    spans = [slice(e - n, e) for e, n in zip(ends, lengths)]
    positions = np.concatenate([np.arange(n) for n in lengths]).astype(np.float64)
    x = model.tensor("token_embd.weight")[np.concatenate([np.asarray(s, int) for s in sequences])]
    if model.gemma:
        x = x * np.sqrt(model.hidden)

    for i in range(model.layers):
        def weight(name):
            return model.tensor(f"blk.{i}.{name}.weight")

        def linear(x, name):
            return model.product(x, f"blk.{i}.{name}")

        normed = rms_norm(x, weight("attn_norm"), model.eps)
        if f"blk.{i}.attn_qkv.weight" in model.tensors:
            n, m = model.heads * model.head_dim, model.kv_heads * model.head_dim
            q, k, v = np.split(linear(normed, "attn_qkv"), [n, n + m], axis=1)
        else:
            q, k, v = (linear(normed, f"attn_{part}") for part in "qkv")
        q, k, v = (a.reshape(len(x), -1, model.head_dim) for a in (q, k, v))
        if model.arch in ("qwen3", "gemma3"):
            q = rms_norm(q, weight("attn_q_norm"), model.eps)
            k = rms_norm(k, weight("attn_k_norm"), model.eps)
        angles, magnitude = rope_angles(model, i, positions)
        q, k = rotate(model, q, angles, magnitude), rotate(model, k, angles, magnitude)
        attended = np.concatenate([attend(model, i, q[s], k[s], v[s], attention_scale(model)) for s in spans])
        delta = linear(attended, "attn_output")
        if model.gemma:
            delta = rms_norm(delta, weight("post_attention_norm"), model.eps)
        x = x + delta

        normed = rms_norm(x, weight("ffn_norm"), model.eps)
        if f"blk.{i}.ffn_gate.weight" in model.tensors:
            gate, up = linear(normed, "ffn_gate"), linear(normed, "ffn_up")
        else:
            gate, up = np.split(linear(normed, "ffn_up"), 2, axis=1)
        delta = linear((gelu_tanh if model.gemma else silu)(gate) * up, "ffn_down")
        if model.gemma:
            delta = rms_norm(delta, weight("post_ffw_norm"), model.eps)
        x = x + delta

    x = rms_norm(x, model.tensor("output_norm.weight"), model.eps)
    output = "output" if "output.weight" in model.tensors else "token_embd"
    cap = model.get("final_logit_softcapping", 30.0 if model.arch == "gemma2" else None)
    return [soft_cap(model.product(x[s][n:], output), cap) for s, n in zip(spans, skip)]


def log_softmax(logits):
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
