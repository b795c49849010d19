"""An object with `chat.completions.create(...)` of the shape of OpenAI's client, which asks models of this process.

    >>> import realm
    >>> client = realm.openai.OpenAI(realm.Realm())
    >>> answer = client.chat.completions.create(
    ...     model="qwen2.5-coder-0.5b",
    ...     messages=[{"role": "user", "content": "What is the capital of France?"}],
    ...     temperature=0,
    ... )
    >>> answer.choices[0].message.content
    'The capital of France is Paris.'

`AsyncOpenAI` is the same for tasks. Arguments that Realm does not know are refused with a `TypeError`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, overload

from realm._realm import Chunk, Completion, Generation, Model, Realm
from realm._realm import Token as _Token

__all__ = ["AsyncOpenAI", "OpenAI"]


class _Dumps:
    """`model_dump` and `model_dump_json`, as OpenAI's objects have them."""

    def model_dump(self) -> dict[str, Any]:
        """As nested dictionaries."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def model_dump_json(self) -> str:
        """As JSON."""
        return json.dumps(self.model_dump())


@dataclass
class TopLogprob(_Dumps):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int]


@dataclass
class TokenLogprob(_Dumps):
    """A token with its log-probability, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


@dataclass
class Logprobs(_Dumps):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprob]


@dataclass
class Function(_Dumps):
    """A tool's name, and its arguments as JSON."""

    name: str
    arguments: str


@dataclass
class ToolCall(_Dumps):
    """A call of a tool that the model asks for."""

    id: str
    function: Function
    type: Literal["function"] = "function"


@dataclass
class ToolCallDelta(ToolCall):
    """A call, which comes in one piece."""

    index: int = 0


@dataclass
class Message(_Dumps):
    """What the model said: a text, or calls of tools, or both."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


@dataclass
class Delta(_Dumps):
    """What comes now of what the model says."""

    content: str | None = None
    role: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


@dataclass
class Choice(_Dumps):
    """An answer."""

    index: int
    message: Message
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: Logprobs | None = None


@dataclass
class ChunkChoice(_Dumps):
    """A piece of an answer."""

    index: int
    delta: Delta
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None
    logprobs: Logprobs | None = None


@dataclass
class PromptTokensDetails(_Dumps):
    """Of the prompt's tokens."""

    cached_tokens: int


@dataclass
class CompletionUsage(_Dumps):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


@dataclass
class ChatCompletion(_Dumps):
    """A whole answer."""

    model: str
    choices: list[Choice]
    usage: CompletionUsage
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    object: Literal["chat.completion"] = "chat.completion"


@dataclass
class ChatCompletionChunk(_Dumps):
    """A piece of an answer; with `stream_options={"include_usage": True}` the last one has no choice but the usage."""

    model: str
    choices: list[ChunkChoice]
    id: str
    created: int
    usage: CompletionUsage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


def _usage(usage: Any) -> CompletionUsage:
    prompt, generated = usage.prompt_tokens, usage.generated_tokens
    details = PromptTokensDetails(usage.cached_tokens)
    return CompletionUsage(prompt, generated, prompt + generated, details)


def _logprobs(model: Model, tokens: Sequence[_Token]) -> Logprobs | None:
    def spelled(token: int) -> tuple[str, list[int]]:
        text = model.decode([token], special=True)
        return text, list(text.encode())

    content = []
    for token in tokens:
        if token.logprob is None:
            return None
        text, data = spelled(token.id)
        top = []
        for other in token.top:
            other_text, other_data = spelled(other.id)
            top.append(TopLogprob(other_text, other.logprob, other_data))
        content.append(TokenLogprob(text, token.logprob, data, top))
    return Logprobs(content)


_SAME = {
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "stop", "seed", "tools",
    "tool_choice",
    "response_format", "repetition_penalty", "json_schema", "regex", "grammar", "template_variables",
    "shared_prefix", "adapter", "adapter_scale", "input", "speculation", "ignore_eos",
    "add_generation_prompt", "continue_final_message",
}  # fmt: skip
_MEANINGLESS = {"user", "store", "metadata", "stream_options", "parallel_tool_calls", "service_tier"}


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's arguments as those of `Model.generate`."""
    # OpenAI's own defaults, which its users expect: the distribution as it is.
    found: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    for key, value in options.items():
        if value is None or key in _MEANINGLESS:
            continue
        if key in _SAME:
            found[key] = value
        elif key in ("max_tokens", "max_completion_tokens"):
            found["max_tokens"] = value
        elif key == "logit_bias":
            found[key] = {int(token): bias for token, bias in value.items()}
        elif key == "logprobs":
            if value:
                found["logprobs"] = options.get("top_logprobs") or 0
        elif key == "n":
            if value != 1:
                raise ValueError("n: one answer at a time; ask n times, the prompt is computed once")
        elif key != "top_logprobs":
            raise TypeError(f"got an unexpected keyword argument '{key}'")
    return found


class _Models:
    """Loads each model once, by its name."""

    def __init__(self, source: Realm | Model) -> None:
        self._realm = source if isinstance(source, Realm) else None
        self._loaded: dict[str, Model] = {}
        self._only = source if isinstance(source, Model) else None

    def _known(self, name: str) -> Model | None:
        return self._only or self._loaded.get(name)

    def get(self, name: str) -> Model:
        model = self._known(name)
        if model is None:
            assert self._realm is not None
            model = self._loaded.setdefault(name, self._realm.load_model(name))
        return model

    async def get_async(self, name: str) -> Model:
        model = self._known(name)
        if model is None:
            assert self._realm is not None
            model = self._loaded.setdefault(name, await self._realm.load_model_async(name))
        return model


def _completion(name: str, model: Model, completion: Completion) -> ChatCompletion:
    logprobs = _logprobs(model, completion.tokens)
    calls = [ToolCall(call.id, Function(call.name, call.arguments)) for call in completion.tool_calls]
    message = Message(None if calls and not completion.text else completion.text, tool_calls=calls or None)
    choice = Choice(0, message, completion.finish_reason, logprobs)
    return ChatCompletion(name, [choice], _usage(completion.usage))


class _Pieces:
    """Makes OpenAI's chunks of Realm's."""

    def __init__(self, name: str, model: Model, options: Mapping[str, Any]) -> None:
        self._name, self._model = name, model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._wants_usage = bool((options.get("stream_options") or {}).get("include_usage"))
        self._role: str | None = "assistant"
        self._calls = 0

    def of(self, chunk: Chunk) -> Iterator[ChatCompletionChunk]:
        calls = [
            ToolCallDelta(call.id, Function(call.name, call.arguments), index=index)
            for index, call in enumerate(chunk.tool_calls, self._calls)
        ]
        self._calls += len(calls)
        delta = Delta(None if calls and not chunk.text else chunk.text, self._role, calls or None)
        self._role = None
        choice = ChunkChoice(0, delta, chunk.finish_reason, _logprobs(self._model, chunk.tokens) or None)
        yield ChatCompletionChunk(self._name, [choice], self._id, self._created)
        if chunk.usage is not None and self._wants_usage:
            yield ChatCompletionChunk(self._name, [], self._id, self._created, _usage(chunk.usage))


class Stream:
    """An answer as it comes: iterate over it. `close`, or the end of its `with` block, ends the request."""

    def __init__(self, generation: Generation, pieces: _Pieces) -> None:
        self._generation, self._pieces = generation, pieces

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        for chunk in self._generation:
            yield from self._pieces.of(chunk)

    def close(self) -> None:
        """Ends the request."""
        self._generation.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class AsyncStream:
    """As `Stream`, for `async for`."""

    def __init__(self, generation: Generation, pieces: _Pieces) -> None:
        self._generation, self._pieces = generation, pieces

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        async for chunk in self._generation:
            for piece in self._pieces.of(chunk):
                yield piece

    async def close(self) -> None:
        """Ends the request."""
        self._generation.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


class Completions:
    """`client.chat.completions`."""

    def __init__(self, models: _Models) -> None:
        self._models = models

    @overload
    def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: Literal[False] = False, **options: Any
    ) -> ChatCompletion: ...

    @overload
    def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: Literal[True], **options: Any
    ) -> Stream: ...

    def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: bool = False, **options: Any
    ) -> ChatCompletion | Stream:
        """Answers a conversation, whole or as it comes."""
        loaded = self._models.get(model)
        if stream:
            generation = loaded.stream(messages, **_options(options))
            return Stream(generation, _Pieces(model, loaded, options))
        return _completion(model, loaded, loaded.generate(messages, **_options(options)))


class AsyncCompletions:
    """`client.chat.completions`, for tasks."""

    def __init__(self, models: _Models) -> None:
        self._models = models

    @overload
    async def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: Literal[False] = False, **options: Any
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: Literal[True], **options: Any
    ) -> AsyncStream: ...

    async def create(
        self, *, model: str, messages: Sequence[Mapping[str, Any]], stream: bool = False, **options: Any
    ) -> ChatCompletion | AsyncStream:
        """Answers a conversation, whole or as it comes."""
        loaded = await self._models.get_async(model)
        if stream:
            generation = await loaded.stream_async(messages, **_options(options))
            return AsyncStream(generation, _Pieces(model, loaded, options))
        return _completion(model, loaded, await loaded.generate_async(messages, **_options(options)))


@dataclass
class _Chat:
    completions: Completions


@dataclass
class _AsyncChat:
    completions: AsyncCompletions


class OpenAI:
    """Asks the models of a `Realm`, which are loaded when they are first named, or one `Model`, whatever the name."""

    def __init__(self, source: Realm | Model) -> None:
        self.chat = _Chat(Completions(_Models(source)))


class AsyncOpenAI:
    """As `OpenAI`, for tasks."""

    def __init__(self, source: Realm | Model) -> None:
        self.chat = _AsyncChat(AsyncCompletions(_Models(source)))
