"""Logits processors."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Any

import numpy
import pytest
import realm
from conftest import until


def test_logits_are_changed_in_place_or_returned(model: realm.Model) -> None:
    cat = model.encode(" cat", boundaries=False)[0]
    seen: list[int] = []

    def only_cats(ids: list[int], logits: Any) -> None:
        assert logits.dtype == numpy.float32 and logits.shape == (model.info.vocabulary,)
        seen.append(len(ids))
        logits[:cat] = -math.inf
        logits[cat + 1 :] = -math.inf

    assert model.generate("Once", temperature=0, max_tokens=3, logits_processors=[only_cats]).text == " cat cat cat"
    assert seen == [1, 2, 3]

    def other(ids: list[int], logits: Any) -> Any:
        changed = numpy.full_like(logits, -numpy.inf, dtype=numpy.float64)
        changed[cat] = 0
        return changed

    assert model.generate("Once", temperature=0, max_tokens=2, logits_processors=other).text == " cat cat"
    assert next(model.stream("Once", temperature=0, max_tokens=2, logits_processors=other)).text == " cat"


def test_what_a_processor_raises_ends_the_request(model: realm.Model) -> None:
    class BrokenError(Exception):
        pass

    def broken(ids: list[int], logits: Any) -> None:
        raise BrokenError(len(ids))

    with pytest.raises(BrokenError):
        model.generate("Once", max_tokens=3, logits_processors=[broken])
    with pytest.raises(BrokenError):
        next(model.stream("Once", max_tokens=3, logits_processors=[broken]))
    with pytest.raises(BrokenError):
        model.generate_many(["Once"], max_tokens=3, logits_processors=[broken])
    with pytest.raises(realm.errors.InvalidArgumentError, match="1 logits"):
        model.generate("Once", max_tokens=3, logits_processors=lambda ids, logits: numpy.zeros(1, numpy.float32))
    with pytest.raises(TypeError, match="functions"):
        model.generate("Once", logits_processors=[5])  # type: ignore[list-item]


async def test_processors_for_tasks(model: realm.Model) -> None:
    def broken(ids: list[int], logits: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await model.generate_async("Once", max_tokens=3, logits_processors=[broken])
    with pytest.raises(ZeroDivisionError):
        async for _ in model.stream("Once", max_tokens=3, logits_processors=[broken]):
            pass
    plain = await model.generate_async("Once", max_tokens=8, seed=3)
    same = await model.generate_async("Once", max_tokens=8, seed=3, logits_processors=[lambda ids, logits: None])
    assert plain.text == same.text


def test_a_slow_processor_holds_nobody_up(model: realm.Model) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(ids: list[int], logits: Any) -> None:
        entered.set()
        leave.wait(60)

    with model.stream("Once", max_tokens=3, logits_processors=[slow]):
        assert entered.wait(60)
        # Others answer while it waits.
        assert model.generate("Once", max_tokens=3, ignore_eos=True).usage.generated_tokens == 3
        leave.set()
    until(lambda: model.metrics().served.running == 0)


def test_streams_whose_processors_refer_to_them_are_collected(model: realm.Model) -> None:
    class Reader:
        def __init__(self) -> None:
            self.stream = model.stream("Once", max_tokens=500, ignore_eos=True, logits_processors=[self.change])

        def change(self, ids: list[int], logits: Any) -> None:
            return None

    readers = [weakref.ref(Reader()) for _ in range(5)]

    def gone() -> bool:
        gc.collect()
        return all(reader() is None for reader in readers)

    until(gone)
