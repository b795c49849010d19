"""Lists of prompts and texts in one call."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy
import pytest
import realm
from conftest import ANSWER, CAPITAL, until


def test_thousands_of_texts_in_one_call(runtime: realm.Realm, model: realm.Model) -> None:
    # Far more than the queue holds.
    tenant = runtime.tenant("list", realm.Limits(max_concurrent=4, max_queued=4))
    texts = [f"text {i}" for i in range(300)]
    vectors = tenant.model(model).embed_many(texts)
    assert vectors.shape == (300, model.info.hidden)
    assert numpy.array_equal(vectors[123].numpy(), model.embed("text 123").numpy())


def test_completions_keep_their_order(model: realm.Model) -> None:
    prompts: list[Any] = [CAPITAL, "Once upon a time", model.encode("Once upon a time")]
    first, second, third = model.generate_many(prompts, temperature=0, max_tokens=16)
    assert first.text == ANSWER
    assert second.text == third.text == model.generate("Once upon a time", temperature=0, max_tokens=16).text


def test_one_that_fails_leaves_the_others(model: realm.Model) -> None:
    prompts: list[str | list[int]] = ["Once", [10**8], "Once"]
    with pytest.raises(realm.errors.InvalidArgumentError, match="request 1: "):
        model.generate_many(prompts, max_tokens=2)
    results = model.generate_many(prompts, max_tokens=2, return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds == [realm.Completion, realm.errors.InvalidArgumentError, realm.Completion]


async def test_lists_can_be_awaited_and_cancelled(model: realm.Model) -> None:
    results = await model.generate_many_async(["Once"] * 3, max_tokens=2, temperature=0)
    assert len({result.text for result in results}) == 1
    assert (await model.embed_many_async(["a", "b"])).shape[0] == 2
    assert len(await model.score_many_async(["a b", "c d"])) == 2
    task = asyncio.create_task(model.generate_many_async(["Once"] * 50, max_tokens=4000, ignore_eos=True))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    until(lambda: model.metrics().served.running == 0)


def test_one_is_not_a_list(model: realm.Model) -> None:
    for call in (model.generate_many, model.embed_many, model.score_many, model.encode_many):
        with pytest.raises(TypeError, match="is a list"):
            call("Once upon a time")
    with pytest.raises(TypeError, match="embed_many"):
        model.embed(["a", "b"])  # type: ignore[list-item]
