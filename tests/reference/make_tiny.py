#!/usr/bin/env python3
"""Make the small random models in tiny/ and what the float64 forward pass says about them.

    make_tiny.py [NAME ...]

Writes tiny/NAME.gguf and tiny.json: for each model a sequence of tokens and, after each of them, the eight
likeliest ids with their log-probabilities; for quantized models also those with the input of products rounded to 8 bits.
"""
import json
import math
import pathlib
import sys
import zlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFWriter
from gguf.quants import quantize

from forward import Model, floats, forward, log_softmax

HERE = pathlib.Path(__file__).parent
TOKENS, TOP, VOCAB = 48, 8, 100

SMALL = dict(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ff=96)
# Rows of 256 for the K-quants; what has shorter rows (attention's output, the way down) is then Q8_0.
WIDE = dict(layers=2, hidden=256, heads=4, kv_heads=2, head_dim=32, ff=64)
# One layer, for the types of files that are many.
THIN = WIDE | {"layers": 1}
LONGROPE = {"rope.scaling.attn_factor": 1.19, "rope.scaling.original_context_length": 256}

# Name: architecture, type of the matrices, shape, further metadata.
MODELS = {
    "llama-f32": ("llama", T.F32, SMALL, {}),
    "llama-linear-f16": ("llama", T.F16, SMALL, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama-yarn-f32": ("llama", T.F32, SMALL, {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}),
    "llama3-factors-f16": ("llama", T.F16, SMALL | {"factors": "rope_freqs"}, {"rope.freq_base": 500000.0}),
    "mistral-window-f16": ("llama", T.F16, SMALL, {"attention.sliding_window": 16}),
    "qwen2-f32": ("qwen2", T.F32, SMALL, {"rope.freq_base": 1000000.0}),
    "qwen2-yarn-f16": ("qwen2", T.F16, SMALL | {"tied": True}, {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 128,
        "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0, "rope.scaling.attn_factor": 0.9}),
    "qwen3-f16": ("qwen3", T.F16, SMALL | {"head_dim": 32, "tied": True}, {"rope.freq_base": 1000000.0}),
    "qwen3-bf16": ("qwen3", T.BF16, SMALL, {}),
    "gemma2-f16": ("gemma2", T.F16, SMALL, {"attention.sliding_window": 16, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}),
    # Layer 5 sees everything and has its own rope; key and value heads are wider than hidden / heads.
    "gemma3-f16": ("gemma3", T.F16, {"layers": 7, "hidden": 32, "heads": 2, "kv_heads": 1, "head_dim": 32, "ff": 32}, {
        "attention.sliding_window": 16, "rope.freq_base": 1000000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    "phi3-f32": ("phi3", T.F32, SMALL, {"attention.sliding_window": 0}),
    "phi3-window-f16": ("phi3", T.F16, SMALL, {"attention.sliding_window": 20}),
    # As exporters write it: factors for long and short contexts, and no scaling type.
    "phi3-longrope-f16": ("phi3", T.F16, SMALL | {"factors": "longrope"}, LONGROPE | {"rope.dimension_count": 12}),
    "phi3-shortrope-f16": ("phi3", T.F16, SMALL | {"factors": "longrope"}, LONGROPE | {"context_length": 256}),
    "llama-q4_0": ("llama", T.Q4_0, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "gemma3-q4_1": ("gemma3", T.Q4_1, SMALL | {"hidden": 128, "head_dim": 32}, {"attention.sliding_window": 16}),
    "qwen2-q5_0": ("qwen2", T.Q5_0, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "qwen3-q5_1": ("qwen3", T.Q5_1, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "phi3-q8_0": ("phi3", T.Q8_0, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "llama-q2_k": ("llama", T.Q2_K, WIDE | {"ff": 256}, {}),
    "gemma2-q3_k": ("gemma2", T.Q3_K, WIDE | {"heads": 8}, {"attention.sliding_window": 16}),
    "qwen2-q4_k": ("qwen2", T.Q4_K, WIDE | {"heads": 8}, {}),
    "gemma3-q5_k": ("gemma3", T.Q5_K, WIDE, {"attention.sliding_window": 16}),
    "phi3-q6_k": ("phi3", T.Q6_K, WIDE | {"layers": 1, "heads": 8, "kv_heads": 1}, {}),
    "qwen3-q8_k": ("qwen3", T.Q8_K, WIDE | {"heads": 2, "kv_heads": 1, "ff": 32}, {}),
    "llama-iq4_nl": ("llama", T.IQ4_NL, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "qwen3-iq4_xs": ("qwen3", T.IQ4_XS, WIDE, {}),
    "llama-mxfp4": ("llama", T.MXFP4, SMALL | {"hidden": 128, "head_dim": 32}, {}),
    "qwen3-nvfp4": ("qwen3", T.NVFP4, SMALL | {"hidden": 128, "head_dim": 32, "ff": 128}, {}),
    "llama-q1_0": ("llama", T.Q1_0, SMALL | {"hidden": 128, "head_dim": 32, "ff": 128}, {}),
    "qwen3-iq2_xxs": ("qwen3", T.IQ2_XXS, THIN, {}),
    "llama-iq2_xs": ("llama", T.IQ2_XS, THIN, {}),
    "qwen2-iq2_s": ("qwen2", T.IQ2_S, THIN, {}),
    "qwen3-iq3_xxs": ("qwen3", T.IQ3_XXS, THIN, {}),
    "llama-iq3_s": ("llama", T.IQ3_S, THIN, {}),
    "qwen2-iq1_s": ("qwen2", T.IQ1_S, THIN, {}),
    "qwen3-iq1_m": ("qwen3", T.IQ1_M, THIN, {}),
    "llama-tq1_0": ("llama", T.TQ1_0, THIN, {}),
    "qwen3-tq2_0": ("qwen3", T.TQ2_0, THIN, {}),
}

# Types that the gguf package cannot make: random codes. Where the half floats of a block lie, and what the second
# one (the minimum's scale) has to be, in units of the first, for weights of mean 0.
SCALES = {T.Q2_K: (80, 82, 1.5), T.Q3_K: (108, None, 0), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5),
          T.Q6_K: (208, None, 0), T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0), T.Q1_0: (0, None, 0),
          **dict.fromkeys([T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ1_S], (0, None, 0)),
          T.TQ1_0: (52, None, 0), T.TQ2_0: (64, None, 0), T.IQ1_M: None, T.NVFP4: None, T.MXFP4: None}


class Decoded:
    """What `floats` wants to know about a tensor."""

    def __init__(self, data, shape, ty):
        self.data, self.shape, self.tensor_type = data, list(reversed(shape)), ty


def random_blocks(rng, ty, shape, std):
    """Bytes `[outputs, bytes]` of random codes whose weights have the deviation `std`."""
    length, size = GGML_QUANT_SIZES[ty]
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // length, size), dtype=np.uint8)
    if ty == T.MXFP4:  # a power of two; the codes' own deviation is 5.6
        power = np.rint(np.log2(std / 5.6) + 0.3 * rng.standard_normal(len(blocks)))
        blocks[:, 0] = power + 128
        return blocks.reshape(shape[0], -1)
    if ty == T.NVFP4:  # exponent and mantissa are an almost logarithmic scale
        power = np.log2(std / 5.6) + 0.3 * rng.standard_normal((len(blocks), 4))
        blocks[:, :4] = np.rint(8 * (power + 8)).clip(1, 126)
        return blocks.reshape(shape[0], -1)
    at, minimum_at, ratio = SCALES[ty] or (None, None, 0)
    if ty == T.TQ2_0:  # a code of 3 is no digit
        blocks[:, :64] &= ~(blocks[:, :64] >> 1 & 0x55)
    spread = np.exp(0.3 * rng.standard_normal(len(blocks)))

    def scale(by):
        d = (by * spread).astype(np.float16)
        if ty == T.IQ1_M:
            for i, at_nibble in enumerate(range(49, 57, 2)):
                blocks[:, at_nibble] = blocks[:, at_nibble] & 15 | (d.view(np.uint16) >> 4 * i & 15) << 4
        else:
            blocks[:, at:at + 2] = d[:, None].view(np.uint8)
        if minimum_at is not None:
            blocks[:, minimum_at:minimum_at + 2] = (ratio * d).astype(np.float16)[:, None].view(np.uint8)
        return floats(Decoded(blocks.reshape(shape[0], -1), shape, ty))

    scale(std / scale(0.01).std() * 0.01)
    return blocks.reshape(shape[0], -1)


def q8_k(values):
    """Q8_K blocks: a float32 scale, 256 signed bytes, the sums of each 16 of them."""
    values = values.reshape(-1, 256).astype(np.float32)
    scale = np.abs(values).max(1, keepdims=True) / np.float32(127)
    codes = np.rint(values / scale).astype(np.int8)
    sums = codes.reshape(-1, 16, 16).sum(2, dtype=np.int16)
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8), sums.view(np.uint8)], axis=1)


class Maker:
    def __init__(self, name):
        self.arch, self.type, self.shape, self.meta = MODELS[name]
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.path = HERE / "tiny" / f"{name}.gguf"
        self.writer = GGUFWriter(self.path, self.arch)

    def matrix(self, name, outputs, inputs, gain=1.0):
        """Random weights that keep a row's deviation, times `gain`."""
        std = gain / math.sqrt(inputs)
        ty = self.type if inputs % GGML_QUANT_SIZES[self.type][0] == 0 else T.Q8_0
        values = (std * self.rng.standard_normal((outputs, inputs))).astype(np.float32)
        if ty in SCALES:
            data = random_blocks(self.rng, ty, (outputs, inputs), std)
        elif ty == T.Q8_K:
            data = q8_k(values).reshape(outputs, -1)
        else:
            data = quantize(values, ty)
        self.writer.add_tensor(name, data, raw_dtype=ty)

    def vector(self, name, values):
        self.writer.add_tensor(name, np.asarray(values, np.float32))

    def norm(self, name, length, mean=1.0):
        self.vector(name, mean + 0.2 * self.rng.standard_normal(length))

    def linear(self, name, outputs, inputs, gain=1.0, bias=False):
        self.matrix(f"{name}.weight", outputs, inputs, gain)
        if bias:
            self.vector(f"{name}.bias", 0.3 * self.rng.standard_normal(outputs))

    def layer(self, i):
        s, b = self.shape, f"blk.{i}"
        hidden, ff, q, kv = s["hidden"], s["ff"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
        gemma = self.arch.startswith("gemma")
        self.norm(f"{b}.attn_norm.weight", hidden)
        if self.arch == "phi3":
            self.linear(f"{b}.attn_qkv", q + 2 * kv, hidden, 1.4)
            self.linear(f"{b}.ffn_up", 2 * ff, hidden)
        else:
            biased = self.arch == "qwen2"
            # Scores need some spread, or attention is an average and hides mistakes.
            self.linear(f"{b}.attn_q", q, hidden, 1.6, biased)
            self.linear(f"{b}.attn_k", kv, hidden, 1.6, biased)
            self.linear(f"{b}.attn_v", kv, hidden, 1.0, biased)
            self.linear(f"{b}.ffn_gate", ff, hidden, 1.5)
            self.linear(f"{b}.ffn_up", ff, hidden, 1.5)
        if self.arch in ("qwen3", "gemma3"):
            self.norm(f"{b}.attn_q_norm.weight", s["head_dim"])
            self.norm(f"{b}.attn_k_norm.weight", s["head_dim"])
        self.linear(f"{b}.attn_output", hidden, q)
        self.norm(f"{b}.ffn_norm.weight", hidden)
        self.linear(f"{b}.ffn_down", hidden, ff)
        if gemma:
            # Strong layers over weak embeddings: with the output tied to them a token would else predict itself.
            self.norm(f"{b}.post_attention_norm.weight", hidden, 3.0)
            self.norm(f"{b}.post_ffw_norm.weight", hidden, 3.0)

    def factors(self):
        dim = self.meta.get("rope.dimension_count", self.shape["head_dim"])
        kind = self.shape.get("factors")
        if kind == "rope_freqs":
            self.vector("rope_freqs.weight", np.geomspace(1, 8, dim // 2))
        elif kind == "longrope":
            self.vector("rope_factors_long.weight", np.geomspace(1.1, 30, dim // 2))
            self.vector("rope_factors_short.weight", np.geomspace(1.0, 2.5, dim // 2))

    def metadata(self):
        s = self.shape
        meta = {"block_count": s["layers"], "context_length": 1024, "embedding_length": s["hidden"],
                "feed_forward_length": s["ff"], "attention.head_count": s["heads"],
                "attention.head_count_kv": s["kv_heads"], "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": s["head_dim"]}
        if s["head_dim"] * s["heads"] != s["hidden"]:
            meta |= {"attention.key_length": s["head_dim"], "attention.value_length": s["head_dim"]}
        for key, value in (meta | self.meta).items():
            add = {int: self.writer.add_uint32, float: self.writer.add_float32, str: self.writer.add_string}[type(value)]
            add(f"{self.arch}.{key}", value)

    def write(self):
        s = self.shape
        gemma = self.arch.startswith("gemma")
        tied = s.get("tied") or gemma
        self.metadata()
        self.matrix("token_embd.weight", VOCAB, s["hidden"], 0.8 if gemma else 2.0 if tied else math.sqrt(s["hidden"]))
        self.factors()
        for i in range(s["layers"]):
            self.layer(i)
        self.norm("output_norm.weight", s["hidden"], 2.5 if gemma else 1.0)
        if not tied:
            self.matrix("output.weight", VOCAB, s["hidden"], 2.0)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.rng.integers(0, VOCAB, TOKENS).tolist()


def main(*only):
    """Makes all models, or those named beside the ones that there are."""
    (HERE / "tiny").mkdir(exist_ok=True)
    records = [r for r in json.loads((HERE / "tiny.json").read_text()) if r["model"] not in only] if only else []
    for name in only or MODELS:
        maker = Maker(name)
        tokens = maker.write()
        found, rounded = (log_softmax(forward(Model(maker.path, int8), [tokens])[0]) for int8 in (False, True))
        entropy = -(np.exp(found) * found).sum(-1)
        print(f"{name}: {maker.path.stat().st_size // 1024} KiB, entropy {entropy.mean():.2f} ({entropy.min():.2f} to {entropy.max():.2f})")
        best = np.argsort(-found, axis=1)[:, :TOP]

        def values(of):
            return [[round(float(v), 5) for v in row[ids]] for row, ids in zip(of, best)]

        record = {"model": name, "tokens": tokens, "ids": best.tolist(), "log_probabilities": values(found)}
        if (rounded != found).any():
            record["int8_log_probabilities"] = values(rounded)
        records.append(record)
    with open(HERE / "tiny.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in records) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
