"""Tenants' own programs, and what the application grants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import realm
from conftest import ANSWER, CAPITAL, until

Find = Callable[[str], Path]
WEATHER: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather in a city.",
                "parameters": {
                    "type": "object",
                    "required": ["city"],
                    "additionalProperties": False,
                    "properties": {"city": {"enum": ["Paris", "Rome"]}},
                },
            },
        }
    ],
    "input": {"tool_choice": "required"},
    "temperature": 0,
    "max_tokens": 64,
}


@pytest.fixture(scope="module")
def coder(runtime: realm.Realm) -> Iterator[realm.Model]:
    """A model that understands the results of tools."""
    with runtime.load_model("qwen2.5-coder-0.5b", kv_tokens=4096) as model:
        yield model


@pytest.fixture
def agent(runtime: realm.Realm, coder: realm.Model, program: Find) -> tuple[realm.Tenant, realm.Model]:
    tenant = runtime.tenant("agent")
    tenant.set_program(runtime.load_program(program("agent")))
    return tenant, tenant.model(coder)


def test_a_tenant_s_program_answers(runtime: realm.Realm, model: realm.Model, program: Find) -> None:
    with runtime.load_program(program("chat")) as chat:
        assert chat.info.contract == "program" and chat.info.bytes == program("chat").stat().st_size
        tenant = runtime.tenant("acme")
        tenant.set_program(chat)
        assert tenant.model(model).generate(CAPITAL, temperature=0, max_tokens=16).text == ANSWER
        assert tenant.program is not None
        tenant.set_program(None)
        assert tenant.program is None
    assert runtime.load_program(program("chat").read_bytes()).info.contract == "program"
    with pytest.raises(realm.errors.InvalidProgramError):
        runtime.load_program(b"not WebAssembly")
    with pytest.raises(realm.errors.IoError):
        runtime.load_program("no/such/file.wasm")


def test_a_tenant_has_its_own_program_compiled(runtime: realm.Realm, program: Find) -> None:
    wasm = program("chat").read_bytes()
    with runtime.tenant("acme") as tenant:
        with tenant.compile_program(wasm) as chat:
            held = tenant.memory.code
            assert chat.info.contract == "program" and held > 0
            tenant.set_program(chat)
            assert tenant.memory.code == held
            tenant.set_program(None)
        assert tenant.memory.code == 0

        async def compile_it() -> str:
            with await tenant.compile_program_async(wasm) as chat:
                return chat.info.contract

        assert asyncio.run(compile_it()) == "program"
        with pytest.raises(realm.errors.InvalidProgramError):
            tenant.compile_program(b"not WebAssembly")
        with pytest.raises(TypeError):
            tenant.compile_program("no/such/file.wasm")  # type: ignore[arg-type]


def test_a_granted_tool_is_called(agent: tuple[realm.Tenant, realm.Model]) -> None:
    tenant, model = agent
    calls: list[Any] = []

    def get_weather(arguments: Any) -> Any:
        calls.append(arguments)
        return {"weather": "heavy snow, -7 degrees"}

    tenant.set_grants(realm.Grants(tools={"get_weather": get_weather}))
    text = model.generate(**WEATHER).text
    assert len(calls) == 1 and calls[0]["city"] in ("Paris", "Rome")
    assert "snow" in text or "-7" in text


async def test_a_tool_may_be_a_coroutine_function(agent: tuple[realm.Tenant, realm.Model]) -> None:
    tenant, model = agent
    here = asyncio.get_running_loop()
    loops = []

    async def get_weather(arguments: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return {"weather": "heavy snow, -7 degrees"}

    tenant.set_grants(realm.Grants(tools={"get_weather": get_weather}))
    text = (await model.generate_async(**WEATHER)).text
    assert loops == [here] and ("snow" in text or "-7" in text)


def test_what_a_tool_raises_reaches_the_program_and_nobody_else(agent: tuple[realm.Tenant, realm.Model]) -> None:
    tenant, model = agent
    lines: list[tuple[str, str, str]] = []

    def broken(arguments: Any) -> Any:
        raise ZeroDivisionError("the barometer is broken")

    def log(tenant: str, level: str, message: str) -> None:
        lines.append((tenant, level, message))

    tenant.set_grants(realm.Grants(log=log, tools={"get_weather": broken}))
    assert model.generate(**WEATHER).text
    until(lambda: any("ZeroDivisionError: the barometer is broken" in line[2] for line in lines))
    assert all(line[0] == "agent" for line in lines)
    # A result that is not JSON is a fault of the tool, too.
    tenant.set_grants(realm.Grants(log=log, tools={"get_weather": lambda _: object()}))
    assert model.generate(**WEATHER).text
    until(lambda: any("not JSON serializable" in line[2] for line in lines))

    # So are exceptions that would end a thread or the process.
    def leave(arguments: Any) -> Any:
        raise SystemExit("I go")

    def interrupt(arguments: Any) -> Any:
        raise KeyboardInterrupt

    for tool, message in ((leave, "SystemExit: I go"), (interrupt, "KeyboardInterrupt")):
        tenant.set_grants(realm.Grants(log=log, tools={"get_weather": tool}))
        assert model.generate(**WEATHER).text
        until(lambda: any(message in line[2] for line in lines))


def test_a_tool_may_ask_the_model_itself(agent: tuple[realm.Tenant, realm.Model], coder: realm.Model) -> None:
    tenant, model = agent
    answers: list[str] = []

    def get_weather(arguments: Any) -> Any:
        answers.append(coder.generate(CAPITAL, temperature=0, max_tokens=16).text)
        return answers

    tenant.set_grants(realm.Grants(tools={"get_weather": get_weather}))
    assert model.generate(**WEATHER).text
    assert answers == [ANSWER]


def test_logs_go_to_logging(
    agent: tuple[realm.Tenant, realm.Model], caplog: pytest.LogCaptureFixture
) -> None:
    tenant, model = agent
    tenant.set_grants(realm.Grants(log=True))
    with caplog.at_level(logging.DEBUG, "realm.program"):
        model.generate(**WEATHER)
        until(lambda: any("denied" in record.getMessage() for record in caplog.records))
    assert getattr(caplog.records[0], "tenant") == "agent"


def test_a_log_that_raises_harms_nobody(
    agent: tuple[realm.Tenant, realm.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, model = agent
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reported.append(report.exc_value))

    def log(*line: str) -> None:
        raise ValueError("the disk is full")

    tenant.set_grants(realm.Grants(log=log))
    assert model.generate(**WEATHER).text
    until(lambda: any("the disk is full" in str(error) for error in reported))


def test_grants_are_checked(tmp_path: Path) -> None:
    store = realm.Store(100_000, folder=tmp_path / "store")
    grants = realm.Grants(clock=True, random=7, store=store, http=["api.example.com"])
    assert "api.example.com" in repr(grants)
    with pytest.raises(realm.errors.InvalidArgumentError, match="already"):
        realm.Grants(store=store)
    with pytest.raises(TypeError, match="weather"):
        realm.Grants(tools={"weather": 5})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="log"):
        realm.Grants(log="yes")  # type: ignore[arg-type]
