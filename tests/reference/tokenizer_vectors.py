#!/usr/bin/env python3
"""Write llama.cpp's own vectors of byte-level tokenizers to ../golden/vocabularies.json.

    tokenizer_vectors.py FOLDER     `models` of llama.cpp, which the source package of llama-cpp-python carries

A vocabulary is cut down to what these texts can use: single bytes, and merges whose result occurs in one of the texts. Other merges
never apply, so the tokens are the same, and only their numbers differ.
"""
import json
import pathlib
import sys

from gguf import GGUFReader

HERE = pathlib.Path(__file__).parent
SEPARATOR = "\n__ggml_vocab_test__\n"


def byte_letters():
    """GPT-2's letters for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def cut(path):
    fields = {key: field.contents() for key, field in GGUFReader(path).fields.items() if key.startswith("tokenizer.")}
    if fields["tokenizer.ggml.model"] != "gpt2":
        return None
    letters = byte_letters()
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split(SEPARATOR)
    ids = [[int(n) for n in line.split()] for line in path.with_suffix(".gguf.out").read_text().splitlines()]
    spelled = ["".join(letters[b] for b in text.encode()) for text in texts]
    tokens = fields["tokenizer.ggml.tokens"]
    used = {i for line in ids for i in line}
    types = fields["tokenizer.ggml.token_type"]
    if any(types[i] != 1 for i in used):  # MPT's runs of spaces are found before any pre-tokenizer
        return None
    # By number: a vocabulary may have a token twice.
    kept = [i for i, t in enumerate(tokens) if i in used or len(t) == 1 or any(t in text for text in spelled)]
    number, strings = {of: i for i, of in enumerate(kept)}, {tokens[i] for i in kept}
    merges = [m for m in fields["tokenizer.ggml.merges"] if {m.replace(" ", ""), *m.split(" ")} <= strings]
    cases = [{"text": text, "tokens": [number[i] for i in line]} for text, line in zip(texts, ids)]
    return {"name": path.stem.removeprefix("ggml-vocab-"), "pre": fields.get("tokenizer.ggml.pre", "default"),
            "vocabulary": [tokens[i] for i in kept], "merges": merges, "cases": cases}


def main(folder):
    files = sorted(path for path in pathlib.Path(folder).glob("ggml-vocab-*.gguf") if path.with_suffix(".gguf.inp").exists())
    made = [one for one in map(cut, files) if one]
    for one in made:
        print(f"{one['name']} ({one['pre']}): {len(one['vocabulary'])} tokens, {len(one['merges'])} merges, {len(one['cases'])} texts")
    lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in made]
    (HERE / "../golden/vocabularies.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
