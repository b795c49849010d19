"""The public API in tasks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import realm
from conftest import ANSWER, CAPITAL, ENDLESS, until


async def test_tasks_load_stream_and_generate(runtime: realm.Realm) -> None:
    with await runtime.load_model_async("smollm2-135m") as model:
        text = ""
        async for chunk in model.stream(CAPITAL, temperature=0, max_tokens=16):
            text += chunk.text
        assert text == ANSWER
        async with await model.stream_async(CAPITAL, temperature=0, max_tokens=16) as stream:
            assert (await stream.finish_async()).text == ANSWER


async def test_many_requests_share_the_model(model: realm.Model) -> None:
    asked = [model.generate_async(CAPITAL, temperature=0, max_tokens=16) for _ in range(16)]
    assert [answer.text for answer in await asyncio.gather(*asked)] == [ANSWER] * 16


async def test_everything_that_waits_can_be_awaited(model: realm.Model) -> None:
    assert (await model.embed_async("a cat")).tolist() == model.embed("a cat").tolist()
    assert await model.score_async("a cat", top=2) == model.score("a cat", top=2)
    assert await model.log_likelihood_async([1], [2, 3]) == model.log_likelihood([1], [2, 3])
    sequence = model.sequence()
    sequence.append(model.encode("The capital of France is"))
    forwarded = await sequence.forward_async()
    assert model.decode([int(forwarded.values.numpy().argmax())]) == " Paris"


async def test_errors_arrive_where_it_is_awaited(model: realm.Model) -> None:
    coroutine = model.generate_async(CAPITAL, json_schema={"not": {}})
    with pytest.raises(realm.errors.InvalidArgumentError):
        await coroutine
    with pytest.raises(RuntimeError, match="already awaited"):
        await coroutine


async def test_a_cancelled_task_cancels_its_request(model: realm.Model) -> None:
    task = asyncio.create_task(model.generate_async(**ENDLESS))
    while model.metrics().served.running == 0:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    until(lambda: model.metrics().kv.used == 0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(model.generate_async(**ENDLESS), 0.2)
    until(lambda: model.metrics().kv.used == 0)


async def test_leaving_a_loop_frees_its_pages(model: realm.Model) -> None:
    async for _ in model.stream(**ENDLESS):
        until(lambda: model.metrics().kv.used > 0)
        break
    until(lambda: model.metrics().kv.used == 0)
    async with contextlib.aclosing(model.stream(**ENDLESS)) as stream:
        await anext(stream)
    until(lambda: model.metrics().kv.used == 0)
    assert [chunk async for chunk in stream] == []


async def test_a_cancelled_reader_can_read_on(model: realm.Model) -> None:
    stream = model.stream(CAPITAL, temperature=0, max_tokens=16)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    text = ""
    with contextlib.suppress(asyncio.CancelledError):
        text += (await waiting).text
    assert text + (await stream.finish_async()).text == ANSWER


async def test_the_event_loop_goes_on_meanwhile(model: realm.Model) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await model.generate_async(CAPITAL, temperature=0, max_tokens=16)
    counting.cancel()
    assert turns > 100


def test_two_event_loops_use_one_model_and_one_generation(model: realm.Model) -> None:
    stream = model.stream(CAPITAL, temperature=0, max_tokens=16)

    async def first() -> str:
        return (await anext(stream)).text

    async def rest() -> str:
        return (await stream.finish_async()).text

    assert asyncio.run(first()) + asyncio.run(rest()) == ANSWER

    async def both() -> tuple[str, str]:
        def other() -> str:
            return asyncio.run(ask())

        async def ask() -> str:
            return (await model.generate_async(CAPITAL, temperature=0, max_tokens=16)).text

        return await asyncio.gather(ask(), asyncio.to_thread(other))

    assert list(asyncio.run(both())) == [ANSWER, ANSWER]


async def test_openai_s_shape_for_tasks(model: realm.Model) -> None:
    create = realm.openai.AsyncOpenAI(model).chat.completions.create
    whole = await create(model="any", messages=CAPITAL, temperature=0)
    stream = await create(model="any", messages=CAPITAL, temperature=0, stream=True)
    pieces = [piece.choices[0].delta.content or "" async for piece in stream]
    assert "".join(pieces) == whole.choices[0].message.content == ANSWER


async def test_pulls_can_be_awaited(runtime: realm.Realm) -> None:
    assert str(await runtime.hub.pull_async("smollm2-135m")) == str(runtime.hub.info("smollm2-135m").path)
    with pytest.raises(realm.errors.NotFoundError):
        await runtime.load_model_async("no-such-model")
