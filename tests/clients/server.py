"""OpenAI's, Anthropic's and ollama's own clients, asking `realm serve` over HTTP: `server.py REALM`, the command's path. Prints a line for
each program; exits with 1 if one failed."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import checks
import ollama
import openai
import rpc
from checks import QUESTION, City, check, is_paris

MODEL = "qwen2.5-coder-0.5b"
ASKED = [{"role": "user", "content": QUESTION}]


def raises(error: type[Exception], program: Callable[[], Any]) -> Callable[[], Any]:
    """A program that returns the error that another one is expected to raise."""

    def run() -> Any:
        try:
            return program()
        except error as raised:
            return raised

    return run


def is_error(status: int, word: str) -> Callable[[Any], bool]:
    return lambda raised: getattr(raised, "status_code", None) == status and word in str(raised)


WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def openai_tools(client: openai.OpenAI, stream: bool) -> Any:
    """A round trip: a call, its result, and the answer."""
    tools: Any = [{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}}]
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    options: Any = {"model": MODEL, "tools": tools, "temperature": 0, "max_tokens": 60}
    if stream:
        with client.chat.completions.stream(messages=messages, tool_choice="required", **options) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=messages, tool_choice="required", **options).choices[0].message
    call = message.tool_calls[0]
    messages += [message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "It snows in Paris."}]
    answer = client.chat.completions.create(messages=messages, tool_choice="none", **options)
    return json.loads(call.function.arguments)["city"], answer.choices[0].message.content


def openai_embeddings(client: openai.OpenAI) -> Any:
    # The client asks for base64 by itself, and decodes it.
    plain = client.embeddings.create(model=MODEL, input=["a", "b"]).data[1].embedding
    raw = client.embeddings.create(model=MODEL, input="b", encoding_format="base64").data[0].embedding
    decoded = struct.unpack("<896f", base64.b64decode(raw))  # type: ignore[arg-type]
    return max(abs(x - y) for x, y in zip(plain, decoded, strict=True))


def with_openai(client: openai.OpenAI) -> None:
    chat, options = client.chat.completions, {"model": MODEL, "temperature": 0, "max_tokens": 40}
    check("openai models", lambda: [model.id for model in client.models.list()], lambda found: found == [MODEL])
    check("openai chat", lambda: chat.create(messages=ASKED, **options).choices[0].message.content, is_paris)  # type: ignore[call-overload]

    def stream() -> str:
        chunks = chat.create(messages=ASKED, stream=True, stream_options={"include_usage": True}, **options)  # type: ignore[call-overload]
        found = list(chunks)
        assert found[-1].usage.completion_tokens > 0 and not found[-1].choices
        return "".join(chunk.choices[0].delta.content or "" for chunk in found[:-1])

    check("openai stream", stream, is_paris)
    check("openai completion", lambda: client.completions.create(prompt="The capital of France is", **options).choices[0].text, is_paris)  # type: ignore[call-overload]
    for kind in (False, True):
        check(f"openai tools, stream {kind}", lambda kind=kind: openai_tools(client, kind), lambda said: "Paris" in said[0] and said[1])  # type: ignore[misc]
    asked: Any = [{"role": "user", "content": "Paris is in France."}]
    check("openai schema", lambda: chat.parse(messages=asked, response_format=City, **options).choices[0].message.parsed, lambda city: isinstance(city, City))  # type: ignore[arg-type]
    check("openai embeddings", lambda: openai_embeddings(client), lambda error: error < 1e-5)
    responses, settings = client.responses, {"model": MODEL, "temperature": 0, "max_output_tokens": 40}
    check("openai response", lambda: responses.create(input=QUESTION, **settings).output_text, is_paris)  # type: ignore[call-overload]
    check("openai response schema", lambda: responses.parse(input="Paris is in France.", text_format=City, **settings).output_parsed, lambda city: isinstance(city, City))  # type: ignore[arg-type]

    def events() -> str:
        with responses.stream(input=QUESTION, **settings) as stream:  # type: ignore[arg-type]
            pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            assert stream.get_final_response().output_text == "".join(pieces)
        return "".join(pieces)

    check("openai response stream", events, is_paris)
    long: Any = [{"role": "user", "content": "word " * 40_000}]
    check("openai too long", raises(openai.BadRequestError, lambda: chat.create(messages=long, **options)), is_error(400, "context of 32768"))
    check("openai no model", raises(openai.NotFoundError, lambda: chat.create(model="none", messages=ASKED)), is_error(404, "none"))  # type: ignore[call-overload]
    wrong = client.with_options(api_key="rk_wrong", max_retries=0)
    check("openai wrong key", raises(openai.AuthenticationError, lambda: wrong.models.list()), is_error(401, "API key"))


def anthropic_tools(client: anthropic.Anthropic) -> Any:
    tools: Any = [{"name": "weather", "description": "The weather", "input_schema": WEATHER}]
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    options: Any = {"model": MODEL, "tools": tools, "max_tokens": 60, "extra_body": {"temperature": 0}}
    with client.messages.stream(messages=messages, tool_choice={"type": "any"}, **options) as stream:
        message = stream.get_final_message()
    call = next(block for block in message.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "It snows in Paris."}
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(messages=messages, tool_choice={"type": "none"}, **options)
    return message.stop_reason, call.input["city"], answer.content[0].text


def with_anthropic(client: anthropic.Anthropic) -> None:
    options: Any = {"model": MODEL, "messages": ASKED, "max_tokens": 40, "system": "Be brief.", "extra_body": {"temperature": 0}}
    check("anthropic message", lambda: client.messages.create(**options).content[0].text, is_paris)  # type: ignore[union-attr]

    def stream() -> str:
        with client.messages.stream(**options) as events:
            text = "".join(events.text_stream)
            final = events.get_final_message()
        assert final.content[0].text == text and final.stop_reason == "end_turn" and final.usage.output_tokens > 0  # type: ignore[union-attr]
        return text

    check("anthropic stream", stream, is_paris)
    count = {key: options[key] for key in ("model", "messages", "system")}
    check("anthropic count", lambda: client.messages.count_tokens(**count).input_tokens, lambda tokens: 20 < tokens < 60)
    check("anthropic tools", lambda: anthropic_tools(client), lambda said: said[0] == "tool_use" and "Paris" in said[1] and said[2])
    absent = {**options, "model": "none"}
    check("anthropic no model", raises(anthropic.NotFoundError, lambda: client.messages.create(**absent)), is_error(404, "none"))
    wrong = client.with_options(api_key="rk_wrong", max_retries=0)
    check("anthropic wrong key", raises(anthropic.AuthenticationError, lambda: wrong.messages.create(**options)), is_error(401, "API key"))


def with_ollama(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 40}
    check("ollama chat", lambda: client.chat(MODEL, ASKED, options=options).message.content, is_paris)
    pieces = lambda: "".join(part.message.content or "" for part in client.chat(MODEL, ASKED, options=options, stream=True))  # noqa: E731
    check("ollama stream", pieces, is_paris)
    schema = City.model_json_schema()
    text = lambda: client.generate(MODEL, "Paris is in France.", format=schema, options=options).response  # noqa: E731
    check("ollama schema", text, lambda text: City.model_validate_json(text) is not None)
    check("ollama list", lambda: [model.model for model in client.list().models], lambda found: found == [MODEL])
    check("ollama embed", lambda: len(client.embed(MODEL, ["a", "b"]).embeddings), lambda count: count == 2)


def with_administration(command: str, admin: str, key: str, client: openai.OpenAI) -> None:
    """A name and a program that come while the clients' connections are open."""
    program = Path(__file__).resolve().parent.parent / "conformance/programs/echo.wasm"

    def act(*arguments: str) -> str:
        environment = {"REALM_ADMIN_KEY": key, "REALM_ADMIN_URL": f"http://{admin}"}
        done = subprocess.run([command, "admin", *arguments], env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    act("models", "alias", f"chat={MODEL}")
    act("programs", "put", f"echo={program}", "--tenant", "clients")
    check("openai models with an alias", lambda: [model.id for model in client.models.list()], lambda found: found == [MODEL, "chat"])
    own: Any = {"realm": {"program": "echo", "input": {"a": 1}}}
    echoed = lambda: client.chat.completions.create(model="chat", messages=ASKED, extra_body=own).choices[0].message.content  # type: ignore[call-overload]  # noqa: E731
    check("openai with a program", echoed, lambda text: json.loads(text) == {"a": 1})
    act("models", "unalias", "chat")
    check("openai without the alias", raises(openai.NotFoundError, echoed), is_error(404, "chat"))


def main() -> None:
    command = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        keys = str(Path(folder) / "keys.db")
        create = [command, "api-key", "create", "--api-keys", keys, "--tenant", "clients"]
        key = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
        ops = subprocess.run([*create, "--scope", "administration"], check=True, capture_output=True, text=True).stdout.strip()
        serve = [command, "serve", MODEL, "--port", "0", "--api-keys", keys, "--admin", "127.0.0.1:0"]
        with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr
                admin = next(found[1] for line in server.stderr if (found := re.search(r"administration is at ([\d.:]+)", line)))
                address = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
                with_openai(openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0))
                with_anthropic(anthropic.Anthropic(base_url=address, api_key=key, max_retries=0))
                with_administration(command, admin, ops, openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0))
                rpc.with_grpc(address.removeprefix("http://"), key, MODEL)
                with_ollama(ollama.Client(host=address, headers={"authorization": f"Bearer {key}"}))
            finally:
                server.terminate()
        check("the server ended by itself", lambda: server.returncode, lambda code: code == 0)
    sys.exit(checks.failed)


main()
