"""What `core/realm/examples/streams.rs` does, through the Python package: `python.py threads|asyncio THREADS`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from typing import Any

import realm

PROMPT = [504, 3575, 282, 4649, 314]
OPTIONS: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "speculation": "off"}

runtime = realm.Realm(threads=int(sys.argv[2]), device="cpu")
tenant = runtime.tenant("bench")
model = tenant.model(runtime.load_model("smollm2-135m", kv_tokens=16384))


def start(tokens: int) -> realm.Generation:
    return model.stream(PROMPT, max_tokens=tokens, **OPTIONS)


def ready(streams: int, tokens: int) -> list[realm.Generation]:
    """Generations whose chunks all wait to be read."""
    generations = [start(tokens) for _ in range(streams)]
    while tenant.running + tenant.waiting:
        time.sleep(0.005)
    return generations


def beyond_the_engine(took: float, chunk: realm.Chunk) -> float:
    assert chunk.timings is not None
    return (took - chunk.timings.queued - chunk.timings.prefill - chunk.timings.decode) * 1e6


class Threads:
    def stream(self, streams: int, tokens: int) -> dict[str, float]:
        times = []

        def read() -> None:
            for _ in start(tokens):
                pass
            times.append(time.thread_time())

        began = time.perf_counter()
        readers = [threading.Thread(target=read) for _ in range(streams)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        rate = streams * tokens / (time.perf_counter() - began)
        return {"rate": rate, "reader_us": sum(times) * 1e6 / (streams * tokens)}

    def queued(self, streams: int, tokens: int) -> dict[str, float]:
        generations = ready(streams, tokens)
        began, chunks = time.perf_counter(), 0
        for generation in generations:
            for chunk in generation:
                chunks += chunk.text is not None
        return {"us": (time.perf_counter() - began) * 1e6 / chunks}

    def call(self, count: int) -> dict[str, float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            chunk = next(start(1))
            times.append(beyond_the_engine(time.perf_counter() - began, chunk))
        return {"us": statistics.median(times)}


class Asyncio:
    def stream(self, streams: int, tokens: int) -> dict[str, float]:
        async def read() -> None:
            async for _ in start(tokens):
                pass

        async def main() -> dict[str, float]:
            before, began = time.thread_time(), time.perf_counter()
            await asyncio.gather(*(read() for _ in range(streams)))
            rate = streams * tokens / (time.perf_counter() - began)
            return {"rate": rate, "reader_us": (time.thread_time() - before) * 1e6 / (streams * tokens)}

        return asyncio.run(main())

    def queued(self, streams: int, tokens: int) -> dict[str, float]:
        generations = ready(streams, tokens)

        async def main() -> dict[str, float]:
            began, chunks = time.perf_counter(), 0
            for generation in generations:
                async for chunk in generation:
                    chunks += chunk.text is not None
            return {"us": (time.perf_counter() - began) * 1e6 / chunks}

        return asyncio.run(main())

    def call(self, count: int) -> dict[str, float]:
        async def main() -> dict[str, float]:
            times = []
            for _ in range(count):
                began = time.perf_counter()
                chunk = await anext(start(1))
                times.append(beyond_the_engine(time.perf_counter() - began, chunk))
            return {"us": statistics.median(times)}

        return asyncio.run(main())


face = {"threads": Threads, "asyncio": Asyncio}[sys.argv[1]]()
# The first run touches memory for the first time.
face.stream(1, 10)
print("{}", flush=True)
for line in sys.stdin:
    what, *numbers = line.split()
    print(json.dumps(getattr(face, what)(*map(int, numbers))), flush=True)
