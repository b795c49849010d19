"""What `python.py` does for `stream`, through mistral.rs' wheel: `mistral_rs.py MODEL`."""

import json
import sys
import threading
import time
from pathlib import Path

from mistralrs import ChatCompletionRequest, Runner, Which

file = Path(sys.argv[1])
runner = Runner(
    which=Which.GGUF(tok_model_id=None, quantized_model_id=str(file.parent), quantized_filename=file.name),
    max_seqs=16,
    no_paged_attn=True,
    prefix_cache_n=0,
)

asking = threading.Lock()


def stream(streams: int, tokens: int) -> dict[str, float | None]:
    counts = []

    def read(number: int) -> None:
        question = [{"role": "user", "content": f"Tell me a very long story about {number + 2} cats."}]
        request = ChatCompletionRequest(
            model="default", messages=question, max_tokens=tokens, temperature=0.0, stream=True
        )
        # Only one thread at a time may ask.
        with asking:
            chunks = runner.send_chat_completion_request(request)
        try:
            # Chunks have one token each.
            counts.append(sum(1 for _ in chunks))
        except ValueError as error:
            # Version 0.9.5 fails on SmolLM2 with more than one stream (`input tensor is not contiguous`): there is no rate then.
            print(str(error).splitlines()[0], file=sys.stderr)

    began = time.perf_counter()
    readers = [threading.Thread(target=read, args=(number,)) for number in range(streams)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    complete = len(counts) == streams
    return {"rate": sum(counts) / (time.perf_counter() - began) if complete else None}


stream(1, 10)
print("{}", flush=True)
for line in sys.stdin:
    print(json.dumps(stream(*map(int, line.split()[1:]))), flush=True)
