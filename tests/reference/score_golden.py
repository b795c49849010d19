#!/usr/bin/env python3
"""Score what llama.cpp recorded in tests/golden with the float64 forward pass.

    score_golden.py MODEL.gguf GOLDEN.json OUT.json

OUT.json: for each case of GOLDEN.json and each of its positions the log-probabilities of the recorded ids.
"""
import json
import os
import sys

import numpy as np

from forward import Model, forward, log_softmax


def main(path, golden_path, out_path):
    model = Model(path)
    with open(golden_path) as file:
        golden = json.load(file)["cases"]
    # The last generated id is not fed: nothing was recorded after it.
    sequences = [c["tokens"] + c["greedy"][:-1] for c in golden]
    logits = forward(model, sequences, [len(c["tokens"]) - 1 for c in golden])
    cases, errors = [], []
    for case, logits in zip(golden, logits):
        found = log_softmax(logits)
        rows = [[round(float(found[i, id]), 6) for id, _ in top] for i, top in enumerate(case["top"])]
        errors += [abs(row[0] - top[0][1]) for row, top in zip(rows, case["top"])]
        cases.append(rows)
    with open(out_path, "w") as file:
        lines = ",\n".join("  [" + ",\n   ".join(json.dumps(row) for row in rows) + "]" for rows in cases)
        file.write(f'{{"model": "{os.path.basename(path)}", "cases": [\n{lines}\n]}}\n')
    print(f"{out_path}: llama.cpp's likeliest ids are off by {np.mean(errors):.4f}, at most {np.max(errors):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
