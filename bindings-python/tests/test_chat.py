"""Chat sessions: history, tools, cancelling."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any, Literal

import pytest
import realm
from realm.tools import definition

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    '{% if tools %} Answer with <tool_call>{"name": "...", "arguments": {}}</tool_call>.{% endif %}'
)
CALL = r'<tool_call>\{"name": "weather", "arguments": \{"city": "Paris"\}\}</tool_call>'


@pytest.fixture(scope="module")
def caller(runtime: realm.Realm) -> realm.Model:
    """A model whose template shows the spelling of tool calls."""
    return runtime.load_model("smollm2-135m", kv_tokens=1024, chat_template=TEMPLATE)


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """Tells the weather.

    More of it that no model needs.
    """
    return {"city": city, "weather": "snow"}


def test_a_function_is_its_own_definition() -> None:
    assert definition(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
                "required": ["city"],
            },
        },
    }


def test_tools_run_and_messages_are_json(caller: realm.Model) -> None:
    session = realm.ChatSession(caller, tools=[weather], max_rounds=1, temperature=0, regex=CALL)
    answer = session.ask("Weather?")
    assert answer.finish_reason == "stop" and [call.name for call in answer.tool_calls] == ["weather"]
    messages = json.loads(json.dumps(session.messages))
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(messages[2]["content"]) == {"city": "Paris", "weather": "snow"}
    session.messages = messages[:2]
    assert session.messages == messages[:2]


def test_what_a_tool_raises_the_model_is_told(caller: realm.Model) -> None:
    def weather(city: str) -> str:
        raise LookupError("no such city")

    session = realm.ChatSession(caller, tools=[weather], max_rounds=1, temperature=0, regex=CALL)
    session.ask("Weather?")
    assert "no such city" in session.messages[2]["content"]


async def test_coroutine_functions_are_tools(caller: realm.Model) -> None:
    loop = asyncio.get_running_loop()

    async def weather(city: str) -> str:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        return "snow in " + city

    session = realm.ChatSession(caller, tools=[weather], max_rounds=1, temperature=0, regex=CALL)
    await session.ask_async("Weather?")
    assert session.messages[2]["content"] == "snow in Paris"


def test_a_cancelled_question_is_taken_back(model: realm.Model) -> None:
    session = realm.ChatSession(model, system="Be brief.", temperature=0, ignore_eos=True, max_tokens=300)
    for _ in range(3):
        with session.stream("Tell me a story.") as generation:
            next(generation)
            assert session.busy
            with pytest.raises(realm.errors.InvalidArgumentError, match="cancel"):
                session.ask("And another.")
        assert not session.busy and len(session.messages) == 1


def test_sessions_whose_tools_refer_to_them_are_collected(model: realm.Model) -> None:
    class Agent:
        def __init__(self) -> None:
            self.session = realm.ChatSession(model, tools=[self.look], logits_processors=[self.change])

        def look(self, at: str) -> str:
            return at

        def change(self, ids: list[int], logits: Any) -> None:
            return None

    agents = [weakref.ref(Agent()) for _ in range(20)]
    gc.collect()
    assert sum(agent() is not None for agent in agents) == 0
