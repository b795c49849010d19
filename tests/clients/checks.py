"""The harness of `clients.py` and `server.py`: runs a program, says whether its answer is right, and has the question that they ask."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pydantic

QUESTION = "What is the capital of France? Answer in one sentence."
failed = False


class City(pydantic.BaseModel):
    """A city."""

    name: str
    country: str


def check(name: str, program: Callable[[], Any], right: Callable[[Any], bool]) -> None:
    """Runs a program and says whether its answer is right."""
    global failed
    try:
        answer = program()
        good = right(answer)
        print("ok    " if good else "WRONG ", name, repr(answer)[:150], flush=True)
        failed |= not good
    except Exception:
        failed = True
        print("FAILED", name, flush=True)
        traceback.print_exc(limit=8)


def is_paris(answer: Any) -> bool:
    return "Paris" in str(answer)
