"""A FastAPI application whose clients, tasks, threads and forked children come and go: `abuse.py MODEL SECONDS`. See README.md."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import anyio
import realm
import uvicorn
import uvloop
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

MODEL = realm.Realm(threads=2, device="cpu").load_model(sys.argv[1], kv_tokens=2048)
SECONDS = float(sys.argv[2])
# How long one event loop lives.
LIFE = 5.0
app = FastAPI()


def fail(why: str) -> NoReturn:
    print("python: FAILED:", why, flush=True)
    os._exit(1)


def options() -> dict[str, Any]:
    return {"prompt": "Once upon a time", "max_tokens": random.randrange(1, 100), "ignore_eos": True, "temperature": 0}


@app.get("/tasks")
async def tasks() -> StreamingResponse:
    return StreamingResponse(json.dumps(chunk.text) async for chunk in MODEL.stream(**options()))


@app.get("/threads")
def threads() -> StreamingResponse:
    return StreamingResponse(json.dumps(chunk.text) for chunk in MODEL.stream(**options()))


def client(port: int, end: float) -> None:
    """Asks, and leaves: politely, by a reset, or without reading anything."""
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            path = random.choice(["/tasks", "/threads"])
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            for _ in range(random.randrange(4)):
                connection.recv(random.randrange(1, 200))
            time.sleep(random.random() / 50)
            if random.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def thread(end: float) -> None:
    while time.monotonic() < end:
        stream = MODEL.stream(**options())
        for _ in range(random.randrange(5)):
            next(stream, None)
        if random.random() < 0.3:
            threading.Thread(target=stream.cancel).start()
            with contextlib.suppress(realm.RealmError):
                stream.finish()


def forks(end: float) -> None:
    while time.monotonic() < end:
        time.sleep(random.random())
        child = os.fork()
        if child == 0:
            gc.collect()
            os._exit(0)
        patience = time.monotonic() + 60
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > patience:
                fail("a forked child hangs")
            time.sleep(0.01)


async def leave_somewhere() -> None:
    delay = random.random() / 50
    match random.randrange(6):
        case 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await MODEL.generate_async(**options())
        case 1:
            task = asyncio.ensure_future(MODEL.stream(**options()).finish_async())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        case 2:
            async for _ in MODEL.stream(**options()):
                if random.random() < 0.2:
                    break
        case 3:
            stream = MODEL.stream(**options())
            readers = [asyncio.ensure_future(anext(stream, None)) for _ in range(4)]
            await asyncio.sleep(delay)
            readers[0].cancel()
            stream.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        case 4:
            with anyio.move_on_after(delay):
                async for _ in MODEL.stream(**options()):
                    pass
        case _:
            sequence = MODEL.sequence()
            sequence.append([1, 2, 3, 4, 5])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(sequence.forward_async(), delay)


async def serve(end: float) -> None:
    """A server and tasks, until an event loop's end: some tasks are pending then."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    clients = [asyncio.to_thread(client, port, end) for _ in range(4)]
    coming = [asyncio.create_task(pace(end)) for _ in range(6)]
    await asyncio.gather(*clients, *coming)
    server.should_exit = True
    await serving
    for _ in range(4):
        # Pending at the loop's end.
        asyncio.create_task(MODEL.generate_async(**options()))  # noqa: RUF006
    await asyncio.sleep(random.random() / 100)


async def pace(end: float) -> None:
    while time.monotonic() < end:
        # A request that is lost would wait for ever.
        await asyncio.wait_for(leave_somewhere(), 120)


def interrupted(work: Callable[[], object]) -> None:
    """Ctrl-C comes at some moment of the work, as in a notebook."""
    timer = threading.Timer(random.random() / 20, os.kill, (os.getpid(), signal.SIGINT))
    # It may come before the timer's start has returned.
    with contextlib.suppress(KeyboardInterrupt):
        timer.start()
        work()
        # It comes in any case.
        time.sleep(1)
    timer.join()


def notebook() -> None:
    for _ in range(10):
        interrupted(lambda: list(MODEL.stream(**{**options(), "max_tokens": 1000})))
        interrupted(lambda: asyncio.run(MODEL.generate_async(**{**options(), "max_tokens": 1000})))  # type: ignore[arg-type]


def abuse(seconds: float) -> None:
    end = time.monotonic() + seconds
    others = [threading.Thread(target=work, args=(end,), daemon=True) for work in (thread, thread, forks)]
    for other in others:
        other.start()
    while time.monotonic() < end:
        factory = random.choice([asyncio.new_event_loop, uvloop.new_event_loop])
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(min(end, time.monotonic() + LIFE)))
        notebook()
    for other in others:
        other.join()


def anonymous() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def report(when: str) -> float:
    gc.collect()
    metrics = MODEL.metrics()
    for _ in range(600):
        metrics = MODEL.metrics()
        if metrics.served.running == 0 and metrics.kv.used == 0:
            break
        time.sleep(0.1)
    else:
        fail(f"requests are left: {metrics.served.running} running, {metrics.kv.used} pages")
    answers: list[realm.Completion] = []
    asking = threading.Thread(target=lambda: answers.append(MODEL.generate("Once", max_tokens=2)), daemon=True)
    asking.start()
    asking.join(60)
    if not answers:
        fail("the model does not answer")
    requests = metrics.served.requests
    counts = f"cancelled {requests.cancelled}, finished {requests.finished}"
    print(f"python: {when}: RssAnon {anonymous():.0f} MiB, {counts}", flush=True)
    return anonymous()


# Memory is taken as it is needed: the first tenth shows how much.
abuse(SECONDS * 0.1)
report("start")
abuse(SECONDS * 0.45)
middle = report("middle")
abuse(SECONDS * 0.45)
if (grown := report("end") - middle) > 32:
    fail(f"memory grew by {grown:.0f} MiB, which is more than 32")
print("python: ok", flush=True)
