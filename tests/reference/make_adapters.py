#!/usr/bin/env python3
"""Make LoRA adapters of the experts of tiny models in adapters/, and what the float64 forward pass says about them.

Writes adapters/NAME.gguf as llama.cpp's `convert_lora_to_gguf.py` does (a pair of three-dimensional tensors for all experts of a
layer), and adapters.json: as tiny.json, with half of the adapter's strength added to the weights.
"""
import json
import math
import pathlib
import zlib

import numpy as np
from gguf import GGUFWriter

import families
from forward import Model, log_softmax
from make_tiny import HERE, TOP, random_tokens

SCALE, ALPHA, RANK = 0.5, 8.0, 4
NAMES = ["qwen3moe-f16", "gpt-oss-f16", "mixtral-f32", "llama4-f16"]
ADAPTED = ["attn_v", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]


class Changed(Model):
    """A model whose weights are changed by pairs of matrices, `[experts, rank, inputs]` and `[experts, outputs, rank]`."""

    def __init__(self, path, pairs):
        super().__init__(path)
        self.pairs = pairs

    def tensor(self, name):
        weights = super().tensor(name)
        if name in self.pairs:
            a, b = (x.astype(np.float64) for x in self.pairs[name])
            weights = weights + SCALE * ALPHA / RANK * b @ a
        return weights


def make(name):
    """Writes an adapter; returns its pairs."""
    path = HERE / "tiny" / f"{name}.gguf"
    model, rng = Model(path), np.random.default_rng(zlib.crc32(f"adapter of {name}".encode()))
    writer = GGUFWriter(HERE / "adapters" / f"{name}.gguf", model.arch)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    pairs = {}
    for tensor in model.tensors:
        if not any(tensor.endswith(f".{part}.weight") for part in ADAPTED):
            continue
        *experts, outputs, inputs = model.tensor(tensor).shape
        a = (rng.standard_normal((*experts, RANK, inputs)) / math.sqrt(inputs)).astype(np.float16)
        b = (0.5 * rng.standard_normal((*experts, outputs, RANK))).astype(np.float16)
        pairs[tensor] = a, b
        writer.add_tensor(f"{tensor}.lora_a", a)
        writer.add_tensor(f"{tensor}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, pairs, rng


def main():
    (HERE / "adapters").mkdir(exist_ok=True)
    records = []
    for name in NAMES:
        path, pairs, rng = make(name)
        compute, best, found = families.MODELS[name][3], None, -1.0
        for _ in range(200):
            tokens, model = random_tokens(rng), Changed(path, pairs)
            logits = compute(model, tokens)
            if min(model.margins) > found:
                best, found = (tokens, logits), min(model.margins)
            if found > 0.02:
                break
        tokens, logits = best
        values = log_softmax(logits)
        plain = log_softmax(compute(Model(path), tokens))
        print(f"{name}: choices are {found:.3f} apart; the adapter changes {np.abs(values - plain).mean():.2f} in the mean")
        ids = np.argsort(-values, axis=1)[:, :TOP]
        rows = [[round(float(v), 5) for v in row[of]] for row, of in zip(values, ids)]
        records.append({"model": name, "scale": SCALE, "tokens": tokens, "ids": ids.tolist(), "log_probabilities": rows})
    with open(HERE / "adapters.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in records) + "\n]\n")


if __name__ == "__main__":
    main()
