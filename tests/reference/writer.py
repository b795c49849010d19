"""Writes small random models: tensors of every type, and the metadata that files of all architectures share."""
import math
import zlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFWriter
from gguf.quants import quantize

from forward import floats

# Types that the gguf package cannot make: random codes. Where the half floats of a block lie, and what the second
# one (the minimum's scale) has to be, in units of the first, for weights of mean 0.
SCALES = {T.Q2_K: (80, 82, 1.5), T.Q3_K: (108, None, 0), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5),
          T.Q6_K: (208, None, 0), T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0), T.Q1_0: (0, None, 0), T.Q2_0: (0, None, 0),
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
    if ty == T.Q2_0:  # codes from -1 to 2 of mean 0
        codes = rng.choice(4, p=[0.45, 0.25, 0.15, 0.15], size=(len(blocks), 16, 4)).astype(np.uint8)
        blocks[:, 2:] = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(-1)
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


class Writer:
    """A file of random tensors, seeded by `path`'s name."""

    def __init__(self, path, arch, ty):
        self.path, self.arch, self.type = path, arch, ty
        self.rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
        self.writer = GGUFWriter(path, arch)

    def meta(self, keys):
        """Adds metadata, the keys without the architecture. Lists are arrays of the type of their numbers."""
        add = {bool: self.writer.add_bool, int: self.writer.add_uint32, float: self.writer.add_float32,
               str: self.writer.add_string, list: self.writer.add_array}
        for key, value in keys.items():
            add[type(value)](f"{self.arch}.{key}", value)

    def matrix(self, name, outputs, inputs, gain=1.0, experts=None, ty=None):
        """Random weights that keep a row's deviation, times `gain`; `experts` of them, if given."""
        std = gain / math.sqrt(inputs)
        ty = self.type if ty is None else ty
        ty = ty if inputs % GGML_QUANT_SIZES[ty][0] == 0 else T.Q8_0
        rows = outputs * (experts or 1)
        values = (std * self.rng.standard_normal((rows, inputs))).astype(np.float32)
        if ty in SCALES:
            data = random_blocks(self.rng, ty, (rows, inputs), std)
        elif ty == T.Q8_K:
            data = q8_k(values).reshape(rows, -1)
        else:
            data = quantize(values, ty)
        if experts:
            data = data.reshape(experts, outputs, -1)
        self.writer.add_tensor(name, data, raw_dtype=ty)

    def vector(self, name, values):
        self.writer.add_tensor(name, np.asarray(values, np.float32))

    def norm(self, name, length, mean=1.0, deviation=0.2):
        self.vector(name, mean + deviation * self.rng.standard_normal(length))

    def bias(self, name, *shape, deviation=0.3):
        self.vector(name, deviation * self.rng.standard_normal(shape))

    def linear(self, name, outputs, inputs, gain=1.0, bias=False, **more):
        self.matrix(f"{name}.weight", outputs, inputs, gain, **more)
        if bias:
            self.bias(f"{name}.bias", outputs)

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
