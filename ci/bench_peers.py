"""Compares `realm bench` with llama.cpp, taking turns on the same machine; `ci/bench-peers` runs it."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import figures

HERE = pathlib.Path(__file__).parent
MODELS = {
    "smollm2-135m": "smollm2-135m-instruct-q4_1.gguf",
    "qwen2.5-coder-0.5b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma3-270m": "gemma-3-270m-q4_k_m.gguf",
}

KEYS = [
    "prefill_512",
    "decode_b1",
    "decode_b8",
    "decode_b16",
    "tenants_16",
    "load_s",
    "rss_loaded_mib",
    "rss_b16_mib",
]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--realm", default="target/release/realm")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many turns counts")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--data", metavar="MACHINE", help="put the results into docs/data/MACHINE.json; ci/bench-report shows them")
    args = parser.parse_args()
    cache = os.environ.get("REALM_CACHE") or os.path.expanduser("~/.cache/realm")

    print("| model | measure | Realm | llama.cpp | ratio |\n|---|---|---|---|---|")
    results = []
    for model in args.models:
        path = os.path.join(cache, "models", MODELS[model])
        realm, peer = [], []
        for round in range(args.rounds):
            print(f"{model}: round {round + 1} of {args.rounds}", file=sys.stderr)
            common = [path, "--threads", args.threads, "--repeat", "1"]
            realm.append(run([args.realm, "bench", *common, "--json"]))
            tenants = run([args.realm, "bench", *common, "--tenants", "16", "--json"])
            realm[-1]["tenants_16"] = tenants["tenants"]["16"]["tokens_per_s"]
            peer.append(run([sys.executable, str(HERE / "peer_llama_cpp.py"), *common]))
            # Its nearest to 16 tenants: 16 sequences in one batch, without sampling, text and streams.
            peer[-1]["tenants_16"] = peer[-1]["decode_b16"]
        for key in KEYS:
            ours, theirs = (statistics.median(r[key] for r in runs) for runs in (realm, peer))
            print(f"| {model} | {key} | {ours:g} | {theirs:g} | {ours / theirs:.2f} |", flush=True)
            results.append({"model": model, "measure": key, "realm": float(f"{ours:g}"), "peer": float(f"{theirs:g}")})
    if args.data:
        figures.replace_peers(args.data, results, f"ci/bench-peers --threads {args.threads} --rounds {args.rounds}")


if __name__ == "__main__":
    main()
