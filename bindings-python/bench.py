"""What `examples/rust/examples/delivery.rs` does, through the Python package: `ci/bench-python-node` compares the two.

    python bench.py threads|asyncio [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from typing import Any

import realm

TOKENS = 128
PROMPT = [504, 3575, 282, 4649, 314]
OPTIONS: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "speculation": "off"}

runtime = realm.Realm(threads=2, device="cpu")
model = runtime.load_model("smollm2-135m", kv_tokens=16384)


def overhead(took: float, chunk: realm.Chunk) -> float:
    assert chunk.timings is not None
    return (took - chunk.timings.queued - chunk.timings.prefill - chunk.timings.decode) * 1e6


class Threads:
    def throughput(self, streams: int) -> float:
        def read() -> None:
            for _ in model.stream(PROMPT, max_tokens=TOKENS, **OPTIONS):
                pass

        began = time.perf_counter()
        readers = [threading.Thread(target=read) for _ in range(streams)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        return streams * TOKENS / (time.perf_counter() - began)

    def delivery(self) -> float:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            chunk = next(model.stream(PROMPT, max_tokens=1, **OPTIONS))
            times.append(overhead(time.perf_counter() - began, chunk))
        return statistics.median(times)


class Asyncio:
    def throughput(self, streams: int) -> float:
        async def read() -> None:
            async for _ in model.stream(PROMPT, max_tokens=TOKENS, **OPTIONS):
                pass

        async def main() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(read() for _ in range(streams)))
            return streams * TOKENS / (time.perf_counter() - began)

        return asyncio.run(main())

    def delivery(self) -> float:
        async def main() -> float:
            times = []
            for _ in range(200):
                began = time.perf_counter()
                chunk = await anext(model.stream(PROMPT, max_tokens=1, **OPTIONS))
                times.append(overhead(time.perf_counter() - began, chunk))
            return statistics.median(times)

        return asyncio.run(main())


face = {"threads": Threads, "asyncio": Asyncio}[sys.argv[1]]()
face.throughput(1)
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
    round_ = {"one": face.throughput(1), "sixteen": face.throughput(16), "delivery": face.delivery()}
    print(json.dumps(round_), flush=True)
