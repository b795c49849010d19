"""Misuse ends in an exception: nothing crashes and nothing hangs. A test that might runs in a process of its own."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import UserDict, UserList
from typing import Any

import pytest
import realm
from conftest import ANSWER, CAPITAL, ENDLESS, ROOT, until

PROLOGUE = f"""
import asyncio, os, signal, sys, threading, time
# Where the tests were started in the background, a shell has had SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import realm
SCENARIOS = {str(ROOT / "tests/conformance")!r}
CAPITAL = {CAPITAL!r}
ENDLESS = {ENDLESS!r}
model = realm.Realm(threads=2, device="cpu").load_model("smollm2-135m", kv_tokens=16384)
"""


def run(program: str, status: int = 0, **options: Any) -> str:
    """Runs a Python program, which must end by itself with this status; returns its output."""
    code = PROLOGUE + textwrap.dedent(program)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return str(ran.stdout)


def test_numbers_that_are_none_are_refused_by_name(runtime: realm.Realm, model: realm.Model) -> None:
    fractions = ["temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "frequency_penalty", "presence_penalty"]
    wholes = ["max_tokens", "top_k", "repetition_window", "seed", "logprobs"]
    refused = (TypeError, realm.errors.InvalidArgumentError)
    wrong: list[tuple[str, Any]] = []
    for name in [*fractions, "adapter_scale"]:
        wrong += [(name, value) for value in (float("nan"), float("inf"), 1e300, 10**400, True, "1")]
    for name in [*wholes, "shared_prefix"]:
        wrong += [(name, value) for value in (float("nan"), 1.5, -1, 2**70, True)]
    wrong += [(name, "1") for name in wholes]
    wrong += [("logit_bias", {5: float("nan")}), ("logit_bias", {5: float("inf")}), ("banned_tokens", [1.5])]
    wrong += [("json_schema", {"maximum": float("nan")}), ("input", [float("inf")]), ("json_schema", {"const": 2**70})]
    for name, value in wrong:
        with pytest.raises(refused) as raised:
            model.generate("a", **{name: value})
        assert name in str(raised.value) or "scale" in str(raised.value), (name, value, raised.value)
    limits: list[dict[str, Any]] = [{"weight": float("nan")}, {"request_timeout": float("nan")}, {"kv_tokens": -1}]
    for limit in limits:
        with pytest.raises(refused):
            runtime.tenant("a", **limit)
    first = model.generate("Once upon a", max_tokens=1, temperature=0).tokens[0].id
    other = model.generate("Once upon a", max_tokens=1, temperature=0, logit_bias={first: float("-inf")})
    assert other.tokens[0].id != first


def test_wrong_types_and_names_are_refused(runtime: realm.Realm, model: realm.Model) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": []}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"json_schema": object()}, "json_schema"),
        ({"adapter": model}, "adapter"),
        ({"input": object()}, "input"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"colour": None}, "unexpected keyword argument 'colour'"),
    ]
    for options, message in wrong:
        with pytest.raises(TypeError, match=message):
            model.generate("a", **options)
    prompts: list[Any] = [5, None, ["a"], [{"role": "user"}, 5], b"a"]
    for prompt in prompts:
        with pytest.raises((TypeError, realm.errors.InvalidArgumentError)):
            model.generate(prompt)
    for options in ({"max_tokens": -1}, {"top_p": 2.0}, {"speculation": "wild"}, {"shared_prefix": "user"}):
        with pytest.raises(realm.errors.InvalidArgumentError):
            model.generate("a", **options)
    with pytest.raises(realm.errors.InvalidArgumentError):
        model.decode([10**6])
    with pytest.raises(realm.errors.InvalidArgumentError):
        runtime.tenant("a", realm.Limits(weight=-1))
    with pytest.raises(realm.errors.InvalidArgumentError):
        realm.Realm(threads=0)
    with pytest.raises(realm.errors.UnsupportedError):
        realm.Realm(device="abacus")
    with pytest.raises(TypeError):
        runtime.tenant(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        realm.Model()


def test_values_too_deep_inside_each_other_are_refused(model: realm.Model) -> None:
    """Reading such values recursed until the stack, and with it the process, ended."""
    around: list[Any] = []
    around.append(around)
    mutual: dict[str, Any] = {}
    mutual["k"] = UserDict(k=mutual)
    deep: Any = "x"
    for i in range(100_000):
        deep = [deep] if i % 2 else {"k": deep}
    frozen: Any = frozenset()
    for _ in range(5_000):
        frozen = frozenset([frozen])
    for value in (around, mutual, deep, frozen, UserList([around]), (around,)):
        for option in ("input", "json_schema"):
            with pytest.raises(TypeError, match="inside each other"):
                model.generate("a", **{option: value})  # type: ignore[arg-type]
    fits: Any = "x"
    for _ in range(100):
        fits = [fits]
    message = {"role": "user", "content": "a", "further": fits}
    assert model.generate([message], max_tokens=1).tokens


def test_errors_are_also_what_python_code_expects(runtime: realm.Realm) -> None:
    with pytest.raises(LookupError, match="no-such-model"):
        runtime.load_model("no-such-model")
    with pytest.raises(ValueError):
        realm.Realm(threads=0)
    error = pickle.loads(pickle.dumps(realm.errors.TrapError("why")))
    assert (type(error), error.code, str(error)) == (realm.errors.TrapError, "trap", "why")


def test_what_is_closed_says_so(runtime: realm.Realm) -> None:
    model = runtime.load_model("smollm2-135m")
    stream, sequence, tenant = model.stream(**ENDLESS), model.sequence(), runtime.tenant("a")
    seen = tenant.model(model)
    with model, sequence, tenant:
        pass
    for use in (
        lambda: model.generate("a"),
        lambda: model.info,
        lambda: model.generate_async("a"),
        lambda: sequence.append([1]),
        lambda: sequence.forward(),
        lambda: tenant.name,
    ):
        with pytest.raises(realm.errors.InvalidArgumentError, match="closed"):
            use()
    # Objects that it created still work.
    assert next(stream).text and seen.generate("a", max_tokens=1).tokens
    stream.cancel()
    stream.close()
    assert list(stream) == []
    with pytest.raises(realm.errors.CancelledError):
        stream.finish()
    model.close()


def test_a_generation_is_cancelled_from_another_thread(model: realm.Model) -> None:
    stream = model.stream(**ENDLESS)
    threading.Timer(0.3, stream.cancel).start()
    assert len(list(stream)) > 0
    stream = model.stream(**ENDLESS)
    threading.Timer(0.3, stream.cancel).start()
    with pytest.raises(realm.errors.CancelledError):
        stream.finish()
    until(lambda: model.metrics().kv.used == 0)


def test_a_dropped_generation_frees_its_pages(model: realm.Model) -> None:
    for drop in ("stream.cancel()", "del stream", "stream = None"):
        scope: dict[str, Any] = {"stream": model.stream(**ENDLESS)}
        next(scope["stream"])
        until(lambda: model.metrics().kv.used > 0)
        exec(drop, scope)
        until(lambda: model.metrics().kv.used == 0)


def test_an_exception_in_the_loop_ends_the_request(model: realm.Model) -> None:
    with pytest.raises(ZeroDivisionError):
        with model.stream(**ENDLESS) as stream:
            for _ in stream:
                1 / 0
    until(lambda: model.metrics().kv.used == 0)


def test_threads_use_one_model(model: realm.Model) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(model.generate(CAPITAL, temperature=0, max_tokens=16).text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [ANSWER] * 8


def test_one_forward_at_a_time(model: realm.Model) -> None:
    sequence = model.sequence()
    sequence.append(model.encode("The capital of France is"))
    coroutine = sequence.forward_async()
    with pytest.raises(RuntimeError, match="running"):
        sequence.forward()
    coroutine.close()
    sequence.forward()


def test_nothing_is_pickled_or_copied(runtime: realm.Realm, model: realm.Model) -> None:
    for thing in (runtime, model, model.stream("a"), model.sequence(), runtime.tenant("a")):
        for copies in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickle"):
                copies(thing)


def test_an_awaitable_needs_a_loop(model: realm.Model) -> None:
    coroutine = model.generate_async("a")
    with pytest.raises(RuntimeError, match="event loop"):
        coroutine.send(None)
    coroutine.close()


def test_ctrl_c_stops_what_waits() -> None:
    program = """
    def interrupt(delay):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()

    waits = [
        lambda: model.generate(**ENDLESS),
        lambda: [None for _ in model.stream(**ENDLESS)],
        lambda: asyncio.run(model.generate_async(**ENDLESS)),
    ]
    for wait in waits:
        interrupt(0.3)
        try:
            wait()
            print("ended")
        except KeyboardInterrupt:
            print("interrupted")
        for _ in range(1000):
            if model.metrics().kv.used == 0:
                break
            time.sleep(0.01)
        print(model.metrics().kv.used)
    """
    assert run(program) == "interrupted\n0\n" * 3


def test_an_uncaught_ctrl_c_ends_the_process() -> None:
    code = PROLOGUE + "print('ready', flush=True)\nfor chunk in model.stream(**ENDLESS): pass\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and b"KeyboardInterrupt" in errors


def test_exit_in_the_middle_of_everything() -> None:
    ends = ["", "sys.exit(0)", "os._exit(0)"]
    for end in ends:
        program = f"""
        stream = model.stream(**ENDLESS)
        next(stream)
        other = model.stream(**ENDLESS)
        thread = threading.Thread(target=lambda: [None for _ in other], daemon=True)
        thread.start()
        waiting = threading.Thread(target=lambda: model.generate(**ENDLESS), daemon=True)
        waiting.start()

        async def main():
            tasks = [asyncio.ensure_future(model.generate_async(**ENDLESS)) for _ in range(4)]
            await asyncio.sleep(0.3)
            globals()["kept"] = tasks
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        print("done", flush=True)
        {end}
        """
        assert run(program) == "done\n"


def test_exit_from_a_callback() -> None:
    program = """
    def leave(event):
        raise SystemExit(7)
    realm.Realm(device="cpu").load_model("smollm2-135m", progress=leave)
    """
    run(program, status=7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_told_and_can_start_anew() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    stream, sequence = model.stream(**ENDLESS), model.sequence()
    next(stream)
    asyncio.run(model.generate_async("a", max_tokens=1))
    child = os.fork()
    if child == 0:
        for use in (lambda: model.generate("a"), lambda: next(stream), lambda: sequence.forward(),
                    lambda: model.info, lambda: stream.finish()):
            try:
                use()
                os._exit(3)
            except RuntimeError as error:
                assert "forked" in str(error), error
        stream.cancel()
        del stream, sequence, model
        model = realm.Realm(threads=1, device="cpu").load_model("smollm2-135m")
        text = model.generate(CAPITAL, temperature=0, max_tokens=16).text
        text += asyncio.run(model.generate_async(CAPITAL, temperature=0, max_tokens=16)).text
        print(text, flush=True)
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), len(next(stream).text) > 0)
    """
    assert run(program) == f"{ANSWER}{ANSWER}\n0 True\n"


def test_processes_can_be_spawned() -> None:
    program = f"""
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(eval, ("__import__('realm').Realm(threads=1, device='cpu')"
            ".load_model('smollm2-135m').generate({CAPITAL!r}, temperature=0, max_tokens=16).text",)))
    """
    assert run(program) == ANSWER + "\n"


def test_memory_stays_flat_and_weights_are_held_once() -> None:
    program = """
    import concurrent.futures, gc

    def resident(kind):
        for line in open("/proc/self/smaps_rollup"):
            if line.startswith(kind + ":"):
                return int(line.split()[1]) / 1024

    runtime = realm.Realm(threads=2, device="cpu")
    tiny = runtime.load_model(f"{SCENARIOS}/tiny.gguf", kv_tokens=4096)
    def cycle(_):
        with runtime.tenant("t") as tenant:
            seen = tenant.model(tiny)
            stream = seen.stream("a", max_tokens=2)
            next(stream)
            sequence = seen.sequence()
            sequence.append([1, 2, 3])
            del stream
            realm.Limits(weight=2)
            realm.Grants(tools={"a": print})
            realm.Store(10)
            model.load_adapter(f"{SCENARIOS}/adapter").close()
            with runtime.load_program(f"{SCENARIOS}/programs/hello.wasm") as hello:
                tenant.set_program(hello)
                assert seen.generate("a").text

    # Sixteen at once, which share forward passes.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(cycle, range(200)))
        gc.collect()
        before = resident("Rss")
        list(pool.map(cycle, range(1000)))
    gc.collect()
    grown = resident("Rss") - before

    def held():
        kv = model.metrics().kv
        return resident("Pss") - (kv.used + kv.remembered) * kv.page_bytes / 2**20

    def everybody():
        for tenant in [runtime.tenant(str(n)) for n in range(16)]:
            tenant.model(model).generate(CAPITAL, temperature=0, max_tokens=4)

    # The model's own buffers are there after the first time.
    everybody()
    one = held()
    everybody()
    more = held() - one
    print(round(grown, 1), round(more, 1), round(model.info.file_bytes / 2**20))
    sys.exit(grown > 4 or more > 20)
    """
    if not os.path.exists("/proc/self/smaps_rollup"):
        pytest.skip("only Linux says how much memory a process has")
    run(program)


def test_whole_models_are_created_and_dropped() -> None:
    program = """
    def resident():
        return [int(line.split()[1]) / 1024 for line in open("/proc/self/smaps_rollup") if line[:4] == "Rss:"][0]

    def settled(most):
        # The engine's thread frees the last model's memory at its end, which nothing waits for.
        least = resident()
        patience = time.monotonic() + 2
        while least > most and time.monotonic() < patience:
            time.sleep(0.1)
            least = min(least, resident())
        return least

    def cycle(name):
        with realm.Realm(threads=1, device="cpu") as runtime:
            with runtime.load_model(name, kv_tokens=512) as model:
                model.generate("a", max_tokens=1)
    for name, first, then, most in [("smollm2-135m", 8, 12, 10), (f"{SCENARIOS}/tiny.gguf", 200, 1000, 4)]:
        # What the allocator keeps for next time is there after a few.
        for _ in range(first):
            cycle(name)
        before = settled(0)
        for _ in range(then):
            cycle(name)
        grown = settled(before + most) - before
        print(name, round(grown, 1))
        if grown > most:
            sys.exit(1)
    """
    if not os.path.exists("/proc/self/smaps_rollup"):
        pytest.skip("only Linux says how much memory a process has")
    run(program)
