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

import numpy as np
from gguf import GGMLQuantizationType as T

import families
import families.maker
from forward import Model, forward, log_softmax
from writer import Writer

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
    "qwen2-q2_0": ("qwen2", T.Q2_0, SMALL | {"hidden": 128, "head_dim": 32, "ff": 128}, {}),
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

class Maker(Writer):
    """A model of one of the architectures that `forward.py` computes."""

    def __init__(self, name):
        arch, ty, self.shape, self.keys = MODELS[name]
        super().__init__(HERE / "tiny" / f"{name}.gguf", arch, ty)

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
        dim = self.keys.get("rope.dimension_count", self.shape["head_dim"])
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
        self.meta(meta | self.keys)

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
        self.close()
        return random_tokens(self.rng)


def random_tokens(rng):
    return rng.integers(0, VOCAB, TOKENS).tolist()


def make(name):
    """Writes a model; returns its path, its tokens and its forward pass."""
    if name in MODELS:
        maker = Maker(name)
        tokens = maker.write()
        return maker.path, tokens, lambda model, tokens: forward(model, [tokens])[0]
    arch, ty, write, compute = families.MODELS[name]
    path = HERE / "tiny" / f"{name}.gguf"
    maker = families.maker.Maker(path, arch, ty)
    write(maker)
    return path, safe_tokens(path, compute, maker.rng), compute


def safe_tokens(path, compute, rng):
    """Tokens whose routers' choices don't hang on rounding: the best of a few sequences."""
    def routing(tokens, int8):
        model = Model(path, int8)
        compute(model, tokens)
        return min(model.margins, default=np.inf), model
    best, found = None, -1.0
    for _ in range(300):
        tokens = random_tokens(rng)
        safe, model = routing(tokens, int8=True)
        if model.rounded and safe > found:
            exact, other = routing(tokens, int8=False)
            same = all(np.array_equal(a, b) for a, b in zip(model.chosen, other.chosen))
            safe = min(safe, exact) if same else 0
        if safe > found:
            best, found = tokens, safe
        # Rounding to 8 bits moves scores further than that of floats does.
        if found > (0.1 if model.rounded else 0.05):
            break
    if found < np.inf:
        print(f"{path.stem}: choices of experts are {found:.3f} apart")
    return best


def main(*only):
    """Makes all models, or those named beside the ones that there are."""
    (HERE / "tiny").mkdir(exist_ok=True)
    records = [r for r in json.loads((HERE / "tiny.json").read_text()) if r["model"] not in only] if only else []
    for name in only or [*MODELS, *families.MODELS]:
        path, tokens, compute = make(name)
        found, rounded = (log_softmax(compute(Model(path, int8), tokens)) for int8 in (False, True))
        entropy = -(np.exp(found) * found).sum(-1)
        print(f"{name}: {path.stat().st_size // 1024} KiB, entropy {entropy.mean():.2f} ({entropy.min():.2f} to {entropy.max():.2f})")
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
