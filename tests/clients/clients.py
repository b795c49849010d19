"""Programs that take OpenAI's client, asking a model of this process. Prints a line for each; exits with 1 if one failed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import checks
import httpx
import realm
from checks import QUESTION, City, check, is_paris

MODEL = realm.Realm().load_model("qwen2.5-coder-0.5b")
WIRE = realm.openai.transport(MODEL)
ADDRESS: dict[str, Any] = {"base_url": "http://realm/v1", "api_key": "realm"}


def is_city(answer: Any) -> bool:
    return isinstance(answer, City)


def langchain(**more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    clients = {"http_client": httpx.Client(transport=WIRE), "http_async_client": httpx.AsyncClient(transport=WIRE)}
    return ChatOpenAI(model="any", max_tokens=60, temperature=0, max_retries=0, **ADDRESS, **clients, **more)


def langchain_tools() -> Any:
    from langchain_core.tools import tool

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"snow in {city}"

    return langchain().bind_tools([weather], tool_choice="weather").invoke("Weather in Paris?").tool_calls


def langchain_embeddings() -> Any:
    from langchain_openai import OpenAIEmbeddings

    made = OpenAIEmbeddings(
        model="any", check_embedding_ctx_length=False, http_client=httpx.Client(transport=WIRE), **ADDRESS
    )
    return [len(vector) for vector in made.embed_documents(["Hello", "Good bye"])]


def instructor(mode: str) -> Any:
    import instructor

    made = instructor.from_openai(realm.openai.client(MODEL), mode=getattr(instructor.Mode, mode))
    messages = [{"role": "user", "content": "Paris is in France."}]
    create = made.chat.completions.create
    return create(model="any", response_model=City, messages=messages, max_tokens=100, temperature=0)


def pydantic_ai(output: Any = str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=realm.openai.async_client(MODEL))
    agent = Agent(
        OpenAIChatModel("any", provider=provider),
        output_type=output,
        model_settings={"max_tokens": 60, "temperature": 0},
    )
    return agent.run_sync(QUESTION if output is str else "Paris is in France.").output


def litellm() -> Any:
    import litellm

    message = [{"role": "user", "content": QUESTION}]
    answer = litellm.completion(
        "openai/any", message, client=realm.openai.client(MODEL), max_tokens=20, temperature=0, api_base="http://realm/v1"
    )
    return answer.choices[0].message.content


def dspy() -> Any:
    import dspy
    import litellm

    litellm.client_session = httpx.Client(transport=WIRE)
    settings: dict[str, Any] = {"max_tokens": 100, "temperature": 0, "cache": False, "num_retries": 0}
    # By itself it brings a client of its own, which takes no transport.
    lm = dspy.LM("openai/any", engine="litellm", api_base="http://realm/v1", api_key="realm", **settings)
    dspy.configure(lm=lm)
    return dspy.Predict("question -> answer")(question="What is the capital of France?").answer


check("langchain invoke", lambda: langchain().invoke(QUESTION).content, is_paris)
check("langchain stream", lambda: "".join(str(piece.content) for piece in langchain().stream(QUESTION)), is_paris)
check("langchain ainvoke", lambda: asyncio.run(langchain().ainvoke(QUESTION)).content, is_paris)
check("langchain tools", langchain_tools, lambda calls: calls[0]["name"] == "weather" and "city" in calls[0]["args"])
check("langchain schema", lambda: langchain().with_structured_output(City).invoke("Paris is in France."), is_city)
check("langchain embeddings", langchain_embeddings, lambda sizes: sizes == [896, 896])
for mode in ("TOOLS", "JSON_SCHEMA", "JSON"):
    check(f"instructor {mode}", lambda mode=mode: instructor(mode), is_city)  # type: ignore[misc]
check("pydantic-ai", pydantic_ai, is_paris)
check("pydantic-ai schema", lambda: pydantic_ai(City), is_city)
check("litellm", litellm, is_paris)
check("dspy", dspy, is_paris)
sys.exit(checks.failed)
