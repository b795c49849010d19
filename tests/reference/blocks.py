"""Prints what the gguf package makes of 64 blocks of any bytes, as the hashes of `core/compute/tests/quant.rs`."""
from types import SimpleNamespace

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

from forward import floats

BLOCKS = 64
# Bytes whose two upper bits are cleared, to keep a half float finite.
FINITE = {T.IQ1_M: [55], T.TQ1_0: [53], T.TQ2_0: [65], T.MXFP4: [], T.NVFP4: []}
TYPES = [T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ1_S, T.IQ1_M, T.TQ1_0, T.TQ2_0, T.MXFP4, T.NVFP4,
         T.Q1_0, T.Q2_0, T.IQ4_NL, T.IQ4_XS]


def any_bytes(length):
    state, out = 1, bytearray()
    for _ in range(length):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8).copy()


def values(ty, blocks):
    if ty == T.Q1_0:  # the package knows only its size: a half float, a bit for each of 128 numbers, set for plus
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        return np.where(np.unpackbits(blocks[:, 2:], axis=1, bitorder="little") == 1, d, -d)
    if ty == T.Q2_0:  # and this one not at all
        return floats(SimpleNamespace(data=blocks, shape=[64, len(blocks)], tensor_type=ty))
    return dequantize(blocks, ty)


def fnv(data):
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


if __name__ == "__main__":
    for ty in TYPES:
        size = GGML_QUANT_SIZES[ty][1]
        blocks = any_bytes(BLOCKS * size).reshape(BLOCKS, size)
        for at in FINITE.get(ty, [1]):
            blocks[:, at] &= 0x3F
        with np.errstate(over="ignore"):
            found = np.asarray(values(ty, blocks), np.float32)
        print(f"    (TensorType::{ty.name}, 0x{fnv(found.tobytes()):016x}),")
