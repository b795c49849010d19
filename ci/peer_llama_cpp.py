"""Measures llama.cpp on a GGUF file with the keys of `realm bench --json`; `ci/bench-peers` runs it.

Forward passes only, from C: no sampling, no text, no streams. `realm bench` measures all of that through the public
API, so a comparison of the two is, if anything, kind to llama.cpp.
"""

import argparse
import json
import statistics
import time

import llama_cpp as llama


def resident_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


class Bench:
    def __init__(self, path, threads):
        self.quiet = llama.llama_log_callback(lambda *_: None)
        llama.llama_log_set(self.quiet, None)
        llama.llama_backend_init()
        start = time.perf_counter()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        assert self.model, f"llama.cpp cannot load {path}"
        self.load_s = time.perf_counter() - start
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.threads = threads

    def context(self, sequences, tokens):
        params = llama.llama_context_default_params()
        params.n_ctx = sequences * max(256, -(-tokens // 256) * 256)
        params.n_batch = params.n_ubatch = max(512, sequences)
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self.threads
        params.kv_unified = sequences > 1
        context = llama.llama_init_from_model(self.model, params)
        assert context, "llama.cpp cannot create a context"
        return context

    def token(self, i):
        return 100 + (i * 7919) % (self.vocabulary - 200)

    @staticmethod
    def forward(context, batch, rows):
        """rows: (token, position, sequence, whether its logits are wanted)"""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        assert llama.llama_decode(context, batch) == 0
        llama.llama_synchronize(context)

    def prefill(self, prompt, repeat):
        context, batch = self.context(1, prompt), llama.llama_batch_init(prompt, 0, 1)
        rates = []
        for run in range(repeat + 1):
            llama.llama_memory_clear(llama.llama_get_memory(context), True)
            rows = [(self.token(i + run), i, 0, i == prompt - 1) for i in range(prompt)]
            start = time.perf_counter()
            self.forward(context, batch, rows)
            rates.append(prompt / (time.perf_counter() - start))
        llama.llama_batch_free(batch)
        llama.llama_free(context)
        # The first run touches memory for the first time.
        return statistics.median(rates[1:])

    def decode(self, sequences, prefix, generate, repeat):
        context = self.context(sequences, prefix + generate)
        batch = llama.llama_batch_init(max(sequences, prefix), 0, 1)
        rates = []
        for _ in range(repeat):
            llama.llama_memory_clear(llama.llama_get_memory(context), True)
            for s in range(sequences):
                self.forward(context, batch, [(self.token(i + s), i, s, i == prefix - 1) for i in range(prefix)])
            start = time.perf_counter()
            for step in range(generate):
                rows = [(self.token(step * sequences + s), prefix + step, s, True) for s in range(sequences)]
                self.forward(context, batch, rows)
            rates.append(sequences * generate / (time.perf_counter() - start))
        resident = resident_mib()
        llama.llama_batch_free(batch)
        llama.llama_free(context)
        return statistics.median(rates), resident


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=16)
    parser.add_argument("--batch", default="1,8,16")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()

    bench = Bench(args.model, args.threads)
    out = {"peer": "llama.cpp", "version": llama.__version__, "load_s": round(bench.load_s, 3)}
    out["rss_loaded_mib"] = resident_mib()
    out[f"prefill_{args.prompt}"] = round(bench.prefill(args.prompt, args.repeat), 1)
    for sequences in map(int, args.batch.split(",")):
        rate, resident = bench.decode(sequences, args.prefix, args.generate, args.repeat)
        out[f"decode_b{sequences}"] = round(rate, 1)
        out[f"rss_b{sequences}_mib"] = resident
    print(json.dumps(out))


if __name__ == "__main__":
    main()
