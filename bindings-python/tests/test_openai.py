"""OpenAI's clients, with a real model of this process."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from typing import Any

import httpx
import openai
import pydantic
import pytest
import realm
from conftest import ANSWER, until
from conftest import CAPITAL as QUESTION

# OpenAI's messages are a union of many types.
CAPITAL: Any = QUESTION
MORE: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 16}
LONG: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "max_tokens": 4000,
    "extra_body": {"ignore_eos": True},
}


class City(pydantic.BaseModel):
    name: str
    country: str


@pytest.fixture(scope="module")
def client(model: realm.Model) -> openai.OpenAI:
    return realm.openai.client(model)


@pytest.fixture(scope="module")
def tenant(runtime: realm.Realm) -> realm.Tenant:
    """The tenant whose requests these tests count."""
    return runtime.tenant("openai's clients")


def idle(tenant: realm.Tenant, cancelled: int) -> None:
    until(lambda: tenant.metrics().requests.cancelled == cancelled and tenant.metrics().running == 0)


def test_the_real_client(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=CAPITAL, logprobs=True, top_logprobs=2, n=2, **MORE)
    assert type(answer) is openai.types.chat.ChatCompletion
    assert [choice.message.content for choice in answer.choices] == [ANSWER, ANSWER]
    assert answer.usage is not None and answer.usage.completion_tokens == 16
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == ANSWER
    assert len(logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(
        messages=CAPITAL, stream=True, stream_options={"include_usage": True}, **MORE
    )
    *pieces, last = list(stream)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER
    assert pieces[0].choices[0].delta.role == "assistant" and pieces[-1].choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage is not None
    text = client.completions.create(model="any", prompt="One, two, three,", max_tokens=4, temperature=0)
    assert "four" in text.choices[0].text
    vectors = client.embeddings.create(model="any", input=["Hello", "Good bye"])
    assert len(vectors.data[1].embedding) == 576
    assert [entry.id for entry in client.models.list()] == ["smollm2-135m"]


def test_schemas_and_raw_responses(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        messages=[{"role": "user", "content": "Paris is in France."}],
        response_format=City,
        **{**MORE, "max_tokens": 60},
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    raw = client.chat.completions.with_raw_response.create(
        messages=CAPITAL, extra_body={"colour": "red"}, **{**MORE, "max_tokens": 1}
    )
    assert raw.headers["realm-ignored-fields"] == "colour"
    with client.chat.completions.stream(messages=CAPITAL, **MORE) as stream:
        events = [event.type for event in stream]
    assert "content.delta" in events and stream.get_final_completion().choices[0].message.content == ANSWER


def test_responses(client: openai.OpenAI) -> None:
    options: Any = {"model": "any", "input": CAPITAL, "temperature": 0, "max_output_tokens": 16}
    assert client.responses.create(**options).output_text == ANSWER
    with client.responses.stream(**options) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(pieces) == stream.get_final_response().output_text == ANSWER


def test_failures_are_the_client_s_own(client: openai.OpenAI, runtime: realm.Realm) -> None:
    with pytest.raises(openai.BadRequestError, match="at least 1, not -1") as failed:
        client.chat.completions.create(model="any", messages=CAPITAL, max_tokens=-1)
    assert failed.value.param == "max_tokens" and failed.value.code == "invalid-argument"
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "word " * 20000}])
    assert failed.value.code == "context_length_exceeded" and failed.value.param == "messages"
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        client.responses.create(model="any", input="Hi", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError) as failed_:
        realm.openai.client(runtime).chat.completions.create(model="no-such-model", messages=CAPITAL)
    assert failed_.value.code == "model_not_found"
    with pytest.raises(TypeError, match="a realm.Realm or a realm.Model"):
        realm.openai.client("smollm2-135m")  # type: ignore[arg-type]


def test_leaving_a_stream_and_timeouts(model: realm.Model, tenant: realm.Tenant) -> None:
    client = realm.openai.client(tenant.model(model))
    before = tenant.metrics().requests.cancelled
    with client.chat.completions.create(stream=True, **LONG) as stream:
        next(iter(stream))
    idle(tenant, before + 1)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(**LONG)
    idle(tenant, before + 2)
    with pytest.raises(TimeoutError):
        realm.openai.OpenAI(tenant.model(model)).chat.completions.create(timeout=0.2, **LONG)
    idle(tenant, before + 3)


async def test_tasks_that_are_cancelled(model: realm.Model, tenant: realm.Tenant) -> None:
    client = realm.openai.async_client(tenant.model(model))
    answer = await client.chat.completions.create(messages=CAPITAL, **MORE)
    assert answer.choices[0].message.content == ANSWER
    before = tenant.metrics().requests.cancelled

    async def read() -> None:
        async for _ in await client.chat.completions.create(stream=True, **LONG):
            reading.set()

    for call in (read(), client.chat.completions.create(**LONG)):
        reading = asyncio.Event()
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait_for(reading.wait(), 0.5)
        except TimeoutError:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(idle, tenant, before + 2)
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).chat.completions.create(**LONG)
    await asyncio.to_thread(idle, tenant, before + 3)


def test_httpx_of_the_first_generation(model: realm.Model) -> None:
    wire = realm.openai.transport(model)
    for _ in range(2):
        with httpx.Client(transport=wire, base_url="http://realm/v1") as session:
            body = {"messages": CAPITAL, **MORE, "stream": True}
            with session.stream("POST", "/chat/completions", json=body) as response:
                lines = [line for line in response.iter_lines() if line]
            assert response.headers["content-type"].startswith("text/event-stream")
            assert lines[-1] == "data: [DONE]" and json.loads(lines[0][6:])["object"] == "chat.completion.chunk"
            assert session.get("/nothing").status_code == 404
            with pytest.raises(httpx.ReadTimeout):
                session.post("/chat/completions", json={**LONG, "ignore_eos": True}, timeout=0.2)


def test_objects_without_a_package(model: realm.Model) -> None:
    create = realm.openai.OpenAI(model).chat.completions.create
    answer = create(messages=tuple(CAPITAL), **MORE)
    for other in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer), copy.copy(answer)):
        assert other == answer and other.choices[0].message.content == ANSWER
    assert dict(answer) == answer.model_dump() == answer.to_dict() == json.loads(answer.to_json())
    assert answer.model_dump(exclude_none=True)["choices"][0].get("logprobs", "gone") == "gone"
    assert answer.choices[0].message.function_call is None and answer.usage.completion_tokens_details is None
    with pytest.raises(AttributeError, match="no field 'colour'"):
        _ = answer.colour
    assert openai.types.chat.ChatCompletion.model_validate(answer.model_dump()).id == answer.id
    # Answers of either kind go back into a conversation, and so does any iterable.
    theirs = realm.openai.client(model).chat.completions.create(messages=CAPITAL, **MORE)
    for message in (answer.choices[0].message, theirs.choices[0].message):
        again = create(messages=(one for one in [*CAPITAL, message, *CAPITAL]), **MORE)
        assert again.choices[0].finish_reason in ("stop", "length")
    stream = create(messages=CAPITAL, stream=True, **MORE)
    assert next(stream).choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in stream) == ANSWER
    assert list(stream) == []
    assert create(messages=CAPITAL, seed=openai.NOT_GIVEN, timeout=30, extra_headers={}, n=1, **MORE).choices
    with pytest.raises(realm.errors.InvalidArgumentError, match="max_tokens"):
        create(model="any", messages=CAPITAL, max_tokens=-1)
    assert create(messages=[{"role": "user", "content": "\ud83d"}], **MORE).choices


def test_the_rest_of_a_client_is_the_real_one_s(model: realm.Model) -> None:
    client = realm.openai.OpenAI(model)
    assert client.embeddings.create(model="any", input="Hello").data[0].object == "embedding"
    assert client.models.list().data[0].id == "smollm2-135m"
    parsed = client.chat.completions.parse(messages=CAPITAL, response_format=City, **{**MORE, "max_tokens": 60})
    assert isinstance(parsed.choices[0].message.parsed, City)
    assert str(client.base_url).startswith("http://realm/v1")


def test_first_calls_at_the_same_time_load_a_model_once() -> None:
    runtime = realm.Realm(threads=2, device="cpu")
    asked: list[Any] = [realm.openai.OpenAI(runtime), realm.openai.client(runtime)]
    texts: list[str] = []

    def ask(index: int) -> None:
        answer = asked[index % 2].chat.completions.create(messages=CAPITAL, **{**MORE, "model": "smollm2-135m"})
        texts.append(answer.choices[0].message.content or "")

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [ANSWER] * 16
    # A second engine would have counted some of them, and a third client asks the same one.
    service = realm.openai.OpenAI(runtime)._calls.service
    assert service.model("smollm2-135m").metrics().served.requests.finished == 16
