"""A program that uses a server's models instead of its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import realm
from conftest import ANSWER, CAPITAL, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a server, and a key."""
    keys = str(tmp_path_factory.mktemp("server") / "keys.db")
    command = [sys.executable, "-m", "realm"]
    create = [*command, "api-key", "create", "--api-keys", keys, "--tenant", "acme"]
    key = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
    serve = [*command, "serve", "smollm2-135m", "--port", "0", "--api-keys", keys]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        yield next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line))), key
        server.terminate()


def test_one_line_makes_a_program_use_a_server(served: tuple[str, str], model: realm.Model) -> None:
    url, key = served
    with realm.Realm.connect(url, key) as there:
        assert there.is_remote
        remote = there.load_model("smollm2-135m")
        assert remote.generate(CAPITAL, temperature=0, max_tokens=16).text == ANSWER
        assert "".join(chunk.text for chunk in remote.stream(CAPITAL, temperature=0, max_tokens=16)) == ANSWER
        assert remote.encode("The sky") == model.encode("The sky")
        assert list(remote.embed("The sky")) == list(model.embed("The sky"))
        sequence = remote.sequence()
        sequence.append(remote.encode("The capital of France is"))
        logits = sequence.forward().values
        assert len(sequence.fork()) == len(sequence) and len(logits) == remote.info.vocabulary
        tenant = there.tenant("acme")
        assert tenant.model(remote).generate(CAPITAL, temperature=0, max_tokens=16).text == ANSWER
        generation = remote.stream("Once upon a time", ignore_eos=True, max_tokens=4000)
        next(generation)
        generation.cancel()
        until(lambda: next(generation, None) is None)


def test_it_can_be_awaited(served: tuple[str, str]) -> None:
    async def ask() -> Any:
        async with asyncio.timeout(60):
            there = await realm.Realm.connect_async(*served)
            remote = await there.load_model_async("smollm2-135m")
            return await remote.generate_async(CAPITAL, temperature=0, max_tokens=16)

    assert asyncio.run(ask()).text == ANSWER


def test_what_stays_at_the_server_raises(served: tuple[str, str], tmp_path: Path) -> None:
    url, key = served
    for wrong in (None, "rk_wrong"):
        with pytest.raises(realm.errors.DeniedError):
            realm.Realm.connect(url, wrong)
    with pytest.raises(realm.errors.InvalidArgumentError, match="URL"):
        realm.Realm.connect("localhost")
    with pytest.raises(realm.errors.IoError):
        realm.Realm.connect("http://127.0.0.1:1", key)
    there = realm.Realm.connect(url, key)
    with pytest.raises(realm.errors.NotFoundError):
        there.load_model("absent")
    with pytest.raises(realm.errors.UnsupportedError, match="realm admin models load"):
        there.load_model("smollm2-135m", kv_tokens=64)
    with pytest.raises(realm.errors.DeniedError, match="key of `other`"):
        there.tenant("other")
    with pytest.raises(realm.errors.UnsupportedError, match="realm admin programs put"):
        there.load_program(b"\0asm")
