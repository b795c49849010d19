#!/usr/bin/env python3
"""Makes tiny.gguf: tests/reference/tiny/llama-f32.gguf, a random model of two layers, with a tokenizer of single ASCII
characters. For tests that say nothing of a text and create things by the thousand, or run under valgrind."""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
SOURCE = HERE.parent / "reference/tiny/llama-f32.gguf"
U32, BOOL, STRING, ARRAY, I32 = 4, 7, 8, 9, 5
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def skip(data, at, kind):
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind == ARRAY:
        item, count = struct.unpack_from("<IQ", data, at)
        at += 12
        for _ in range(count):
            at = skip(data, at, item)
        return at
    return at + SIZES[kind]


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def main():
    data = SOURCE.read_bytes()
    version, tensors, entries = struct.unpack_from("<IQQ", data, 4)
    at, alignment = 24, 32
    for _ in range(entries):
        at = skip(data, at, STRING)
        at = skip(data, at + 4, struct.unpack_from("<I", data, at)[0])
    metadata, start = data[24:at], at
    for _ in range(tensors):
        at = skip(data, at, STRING)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 4 + 8
    infos, body = data[start:at], data[-(-at // alignment) * alignment:]

    # The tokenizer's names of a space and a line's end.
    tokens = ["<s>", "</s>", "\u0120", "\u010a", *map(chr, range(33, 127))]
    tokens += [f"<unused{i}>" for i in range(100 - len(tokens))]
    kinds = [3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens]
    array = lambda kind, items: struct.pack("<IQ", kind, len(items)) + b"".join(items)
    added = [
        entry("tokenizer.ggml.model", STRING, text("gpt2")),
        entry("tokenizer.ggml.pre", STRING, text("gpt-2")),
        entry("tokenizer.ggml.tokens", ARRAY, array(STRING, [text(token) for token in tokens])),
        entry("tokenizer.ggml.token_type", ARRAY, array(I32, [struct.pack("<i", kind) for kind in kinds])),
        entry("tokenizer.ggml.merges", ARRAY, array(STRING, [])),
        entry("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 0)),
        entry("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 1)),
        entry("tokenizer.ggml.add_bos_token", BOOL, b"\0"),
    ]
    header = b"GGUF" + struct.pack("<IQQ", version, tensors, entries + len(added))
    header += metadata + b"".join(added) + infos
    header += b"\0" * (-len(header) % alignment)
    (HERE / "tiny.gguf").write_bytes(header + body)


main()
