"""Readers that leave at any moment: the model answers the next one, and all pages are free.

`REALM_STRESS_SECONDS` says how long the random part goes on; without it, it is a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import realm
from conftest import ROOT, until

LONG: dict[str, Any] = {"prompt": "Once upon a time", "ignore_eos": True, "max_tokens": 4000, "temperature": 0}
# Long enough that a read has to wait, which is rare with the tiny model.
ROUNDS = 25


@pytest.fixture(scope="module")
def tiny(runtime: realm.Realm) -> Iterator[realm.Model]:
    with runtime.load_model(ROOT / "tests/conformance/tiny.gguf", kv_tokens=8192) as model:
        yield model


def is_well(model: realm.Model) -> None:
    """Checks that abandoned requests leave nothing behind, and that the next one is answered."""
    until(lambda: model.metrics().served.running == 0 and model.metrics().kv.used == 0)
    # On another thread, since a dead engine never answers.
    answers: list[int] = []
    ask = lambda: answers.append(len(model.generate("a", max_tokens=2, ignore_eos=True).tokens))  # noqa: E731
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    assert answers == [2], "the engine is stuck"


def new_loops() -> list[Any]:
    loops: list[Any] = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop
    except ImportError:
        return loops
    return [*loops, pytest.param(uvloop.new_event_loop, id="uvloop")]


@pytest.fixture(params=new_loops())
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs a coroutine function on a new event loop of each kind."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:

            async def inner() -> Any:
                return await main()

            return runner.run(inner())

    return run


def test_a_task_cancelled_while_it_waits_for_a_chunk(model: realm.Model, run: Callable[..., Any]) -> None:
    async def main() -> None:
        for delay in range(ROUNDS):

            async def read() -> None:
                async for _ in model.stream(**LONG):
                    pass

            task = asyncio.create_task(read())
            await asyncio.sleep(delay / 500)
            task.cancel()
            await asyncio.wait([task])
            del task
            # The same loop gets the next answer.
            assert (await asyncio.wait_for(model.generate_async("Hi", max_tokens=1), 60)).tokens

    run(main)
    is_well(model)


def test_readers_that_leave_after_their_first_chunk(model: realm.Model, run: Callable[..., Any]) -> None:
    async def cancelled() -> None:
        got = asyncio.Event()

        async def read() -> None:
            async for _ in model.stream(**LONG):
                got.set()

        task = asyncio.create_task(read())
        await got.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def left() -> None:
        async for _ in model.stream(**LONG):
            break

    async def closed() -> None:
        async def texts() -> Any:
            async for chunk in model.stream(**LONG):
                yield chunk.text

        async with contextlib.aclosing(texts()) as stream:
            await anext(stream)

    async def out_of_time() -> None:
        async with asyncio.timeout(60):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.03):
                    async for _ in model.stream(**LONG):
                        pass

    async def main() -> None:
        for leave in (cancelled, left, closed, out_of_time):
            for _ in range(3):
                await asyncio.wait_for(asyncio.gather(*(leave() for _ in range(8))), 120)

    run(main)
    is_well(model)


def test_anyio_cancels_scopes(model: realm.Model) -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        for delay in range(ROUNDS):
            with anyio.move_on_after(delay / 500):
                async for _ in model.stream(**LONG):
                    pass
        async with anyio.create_task_group() as group:
            group.start_soon(model.stream(**LONG).finish_async)
            await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        with anyio.fail_after(60):
            await model.generate_async("Hi", max_tokens=1)

    anyio.run(main)
    is_well(model)


def test_two_reads_of_one_task_and_the_first_is_given_up(model: realm.Model) -> None:
    async def main() -> None:
        stream = model.stream(**LONG)
        for _ in range(ROUNDS):
            first, second = asyncio.ensure_future(anext(stream)), asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            first.cancel()
            assert (await asyncio.wait_for(second, 60)).tokens
            await asyncio.gather(first, return_exceptions=True)
        stream.close()

    asyncio.run(main())
    is_well(model)


def test_a_task_whose_loop_is_gone_is_garbage_and_so_is_its_request(
    model: realm.Model, recwarn: pytest.WarningsRecorder
) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    async def read() -> None:
        async for _ in model.stream(**LONG):
            pass

    task = loop.create_task(read())

    async def begun() -> None:
        while model.metrics().served.running == 0:
            await asyncio.sleep(0.01)

    loop.run_until_complete(begun())
    loop.close()
    gone = weakref.ref(loop)
    del task, loop
    gc.collect()
    assert gone() is None
    is_well(model)


def test_an_exception_in_the_loop_s_own_code_eats_no_wake_up(model: realm.Model) -> None:
    """Simulates Ctrl-C, which may come between any two futures that are resolved together."""

    class Interrupted(asyncio.SelectorEventLoop):
        armed = 0

        def create_future(self) -> asyncio.Future[Any]:
            loop = self

            class Future(asyncio.Future[Any]):
                def set_result(self, result: Any) -> None:
                    super().set_result(result)
                    if loop.armed > 0:
                        loop.armed -= 1
                        raise RuntimeError("expected by this test")

            return Future(loop=self)

    async def main(loop: Interrupted) -> None:
        loop.set_exception_handler(lambda *_: None)
        for _ in range(5):
            loop.armed = 3
            asked = [model.generate_async("Once", max_tokens=3) for _ in range(8)]
            await asyncio.wait_for(asyncio.gather(*asked), 60)

    with asyncio.Runner(loop_factory=Interrupted) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Interrupted)
        runner.run(main(loop))
    is_well(model)


async def leave_somewhere(model: realm.Model, luck: random.Random) -> None:
    request = {**LONG, "max_tokens": luck.randrange(1, 200)}
    delay = luck.random() * 0.004
    match luck.randrange(6):
        case 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(model.generate_async(**request), delay)
        case 1:
            task = asyncio.ensure_future(model.stream(**request).finish_async())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        case 2:
            async for _ in model.stream(**request):
                await asyncio.sleep(delay / 10)
                if luck.random() < 0.2:
                    break
        case 3:
            stream = model.stream(**request)
            readers = [asyncio.ensure_future(anext(stream, None)) for _ in range(4)]
            await asyncio.sleep(delay)
            for reader in readers[:2]:
                reader.cancel()
            stream.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        case 4:
            sequence = model.sequence()
            sequence.append(model.encode("Once upon a time"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(sequence.forward_async(), delay / 4)
        case _:
            # A coroutine that is dropped after one step of its own.
            coroutine = model.score_async("Once upon a time", top=2)
            with contextlib.suppress(StopIteration):
                coroutine.send(None)


def test_whatever_tasks_and_threads_do(tiny: realm.Model, run: Callable[..., Any]) -> None:
    end = time.monotonic() + float(os.environ.get("REALM_STRESS_SECONDS", "1"))
    failures: list[BaseException] = []

    def thread(seed: int) -> None:
        luck = random.Random(seed)
        try:
            while time.monotonic() < end:
                stream = tiny.stream(**{**LONG, "max_tokens": luck.randrange(1, 300)})
                for _ in range(luck.randrange(4)):
                    next(stream, None)
                if luck.random() < 0.5:
                    stream.cancel()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(3)]
    for each in threads:
        each.start()

    async def main() -> None:
        seed = 0
        while time.monotonic() < end:
            lucks = [random.Random(seed + i) for i in range(8)]
            seed += 8
            await asyncio.wait_for(asyncio.gather(*(leave_somewhere(tiny, luck) for luck in lucks)), 120)

    run(main)
    for each in threads:
        each.join()
    assert not failures
    gc.collect()
    is_well(tiny)
