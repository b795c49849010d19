"""Shared by the tests: one runtime with the real model, questions, and the programs of wasm-tenants/."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import realm

ROOT = Path(__file__).parents[2]
CAPITAL: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
ANSWER = "The capital of France is Paris."
# The beginning of a long text.
ENDLESS: dict[str, Any] = {"prompt": "Once upon a time", "ignore_eos": True, "max_tokens": 4000, "seed": 1}


@pytest.fixture(scope="session")
def runtime() -> Iterator[realm.Realm]:
    with realm.Realm(threads=2, device="cpu") as runtime:
        yield runtime


@pytest.fixture(scope="session")
def model(runtime: realm.Realm) -> Iterator[realm.Model]:
    with runtime.load_model("smollm2-135m", kv_tokens=16384) as model:
        yield model


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """Returns the file of a program of wasm-tenants/, which `ci/setup` builds."""

    def find(name: str) -> Path:
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        file = target / "programs" / f"{name}.wasm"
        assert file.exists(), f"{file} is missing: run ci/build-programs"
        return file

    return find


def until(what: Callable[[], bool]) -> None:
    """Waits until a condition holds, since the engine reacts at its next step."""
    for _ in range(1000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")
