#!/usr/bin/env python3
"""Compare tiny.json with llama.cpp: the mean and the largest difference of the recorded log-probabilities.

    pip install numpy gguf llama-cpp-python==0.3.36
    against_llama_cpp.py [--f32] [NAME ...]

With `--f32` all weights are decoded to F32 first, so that only the order of sums remains: llama.cpp rounds the other
side of products to the type's precision. Files without a vocabulary, or without keys that llama.cpp demands and
converters don't write, get them in a copy.
"""
import json
import pathlib
import sys
import tempfile

import llama_cpp as L
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from forward import floats

HERE = pathlib.Path(__file__).parent
# Deep models of this architecture have no queries of low rank; a shallow one has to say so.
DEMANDED = {"deepseek2": {"attention.q_lora_rank": 0}}

quiet = L.llama_log_callback(lambda *_: None)


def copy(source, target, f32):
    """Writes `source` again with what llama.cpp demands."""
    reader = GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, arch)
    demanded = {f"{arch}.{key}": value for key, value in DEMANDED.get(arch, {}).items()}
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    for key, value in demanded.items():
        if key not in reader.fields:
            writer.add_uint32(key, value)
    if "tokenizer.ggml.model" not in reader.fields:
        writer.add_string("tokenizer.ggml.model", "no_vocab")
        embeddings = next(t for t in reader.tensors if t.name == "token_embd.weight")
        writer.add_uint32(f"{arch}.vocab_size", int(embeddings.shape[1]))
    for tensor in reader.tensors:
        if f32:
            writer.add_tensor(tensor.name, floats(tensor).astype(np.float32))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def log_probabilities(path, tokens):
    """llama.cpp's, `[tokens, vocab]`."""
    model = L.llama_model_load_from_file(str(path).encode(), L.llama_model_default_params())
    if not model:
        raise RuntimeError("llama.cpp cannot load it")
    params = L.llama_context_default_params()
    # A longer context than the model's own would choose the other of longrope's factors.
    params.n_ctx = params.n_batch = params.n_ubatch = min(512, L.llama_model_n_ctx_train(model))
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0  # F32
    params.flash_attn_type = 0
    params.swa_full = False
    context = L.llama_init_from_model(model, params)
    vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    batch = L.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    if L.llama_decode(context, batch):
        raise RuntimeError("llama.cpp cannot compute it")
    rows = [np.ctypeslib.as_array(L.llama_get_logits_ith(context, i), shape=(vocab,)) for i in range(len(tokens))]
    logits = np.array(rows, np.float64)
    L.llama_batch_free(batch)
    L.llama_free(context)
    L.llama_model_free(model)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def main(*arguments):
    f32 = "--f32" in arguments
    names = [a for a in arguments if a != "--f32"]
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        for record in json.loads((HERE / "tiny.json").read_text()):
            name = record["model"]
            # llama.cpp has no product with weights of Q8_K.
            if (names and name not in names) or (name.endswith("q8_k") and not f32):
                continue
            path = pathlib.Path(folder) / f"{name}.gguf"
            copy(HERE / "tiny" / path.name, path, f32)
            try:
                got = log_probabilities(path, record["tokens"])
            except RuntimeError as error:
                print(f"{name}: {error}")
                continue
            wanted, ids = np.array(record["log_probabilities"]), np.array(record["ids"])
            rounded = np.array(record.get("int8_log_probabilities", wanted))
            got = np.take_along_axis(got, ids, 1)
            off, price = np.abs(got - wanted), np.abs(rounded - wanted)
            eight_bits = f"; 8 bits {price.mean():.4f}, {price.max():.4f}" if price.any() else ""
            print(f"{name}: mean {off.mean():.6f}, largest {off.max():.5f}{eight_bits}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
