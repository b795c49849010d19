"""OpenAI's clients with models of this process.

With the package `openai`, its own clients work, and those built on them, such as LangChain, instructor, pydantic-ai and
LiteLLM:

    >>> import realm
    >>> client = realm.openai.client(realm.Realm())
    >>> answer = client.chat.completions.create(
    ...     model="qwen2.5-coder-0.5b",
    ...     messages=[{"role": "user", "content": "What is the capital of France?"}],
    ...     temperature=0,
    ... )
    >>> answer.choices[0].message.content
    'The capital of France is Paris.'

- `client` and `async_client` are `openai.OpenAI` and `openai.AsyncOpenAI` without a network.
- `transport` is the transport of their calls, for classes that take a client of `httpx`: `ChatOpenAI(http_client=…)`.
- `OpenAI` and `AsyncOpenAI` are objects with the same methods that need no further package. They return `Object`s and raise
  `realm.RealmError`s, never objects of OpenAI's classes, whether that package is installed or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from realm import errors
from realm._objects import Object, read, write
from realm._realm import Adapter, Answer, Events, Model, Realm, Service

from realm._transport import RealmTransport

if TYPE_CHECKING:
    import openai

__all__ = [
    "AsyncOpenAI",
    "AsyncStream",
    "Object",
    "OpenAI",
    "RealmTransport",
    "Stream",
    "async_client",
    "client",
    "transport",
]

# No call goes there, since a transport answers it.
_BASE_URL = "http://realm/v1"

# Without these, OpenAI's clients look for a key in the environment, and retry calls that cannot succeed.
_OPTIONS = {"api_key": "realm", "base_url": _BASE_URL, "max_retries": 0}


def transport(source: Realm | Model) -> Any:
    """Returns a transport that answers the calls of OpenAI's clients in this process, for `httpx.Client(transport=…)` and
    `httpx.AsyncClient(transport=…)`, and those of `httpx2`: a `RealmTransport`."""
    return RealmTransport(source)


def client(source: Realm | Model, **options: Any) -> openai.OpenAI:
    """Returns an `openai.OpenAI` that uses the models of a `Realm`, which are loaded when they are first named, or one
    `Model`. `options` are that class's, such as `timeout` and `max_retries`."""
    package = _openai()
    wire = package.DefaultHttpxClient(transport=transport(source), base_url=_BASE_URL)
    made: openai.OpenAI = package.OpenAI(http_client=wire, **{**_OPTIONS, **options})
    return made


def async_client(source: Realm | Model, **options: Any) -> openai.AsyncOpenAI:
    """Same as `client`, for an `openai.AsyncOpenAI`."""
    package = _openai()
    wire = package.DefaultAsyncHttpxClient(transport=transport(source), base_url=_BASE_URL)
    made: openai.AsyncOpenAI = package.AsyncOpenAI(http_client=wire, **{**_OPTIONS, **options})
    return made


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ImportError("realm.openai.client needs the package openai: pip install openai") from error
    return openai


def _raise(error: Mapping[str, Any], code: str | None) -> None:
    """Raises the error of an answer."""
    message, param = error["message"], error["param"]
    if error["code"] == "unknown_parameter":
        raise TypeError(f"got an unexpected keyword argument '{param}'")
    kind = errors.BY_CODE.get(code or error["code"])
    raise kind(message) if kind else errors.RealmError(message, code or error["code"])


def _answer(answer: Answer) -> Any:
    """Converts an answer for its caller, to an object or to events.

    Raises the error of an answer whose status is not 200.
    """
    if answer.events is not None:
        return answer.events
    found = read(answer.body or "null")
    if answer.status != 200:
        _raise(found["error"], dict(answer.headers).get("realm-error-code"))
    return found


def _event(text: str) -> Object:
    event: Object = read(text)
    if "error" in event:
        _raise(event["error"], None)
    return event


class Stream(Iterator[Object]):
    """An answer as it arrives: iterate over it. `close`, or the end of its `with` block, ends the request."""

    def __init__(self, events: Events, timeout: float | None = None) -> None:
        self._events, self._timeout = events, timeout

    def __next__(self) -> Object:
        event = self._events.next(timeout=self._timeout)
        if event is None:
            raise StopIteration
        return _event(event)

    def close(self) -> None:
        """Ends the request."""
        self._events.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class AsyncStream(AsyncIterator[Object]):
    """Same as `Stream`, for `async for`."""

    def __init__(self, events: Events, timeout: float | None = None) -> None:
        self._events, self._timeout = events, timeout

    async def __anext__(self) -> Object:
        import asyncio

        async with asyncio.timeout(self._timeout):
            event = await self._events.next_async()
        if event is None:
            raise StopAsyncIteration
        return _event(event)

    async def close(self) -> None:
        """Ends the request."""
        self._events.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


def _timeout(value: Any) -> float | None:
    """Returns seconds; for an object of httpx's, its time limit for a read."""
    seconds = getattr(value, "read", value)
    return None if seconds is None else float(seconds)


class _Call:
    """The arguments of a call, with those that are not part of its body kept apart."""

    def __init__(self, options: dict[str, Any]) -> None:
        # OpenAI's package has these classes for "left out".
        given = {key: value for key, value in options.items() if type(value).__name__ not in ("NotGiven", "Omit")}
        # A call in this process has no headers and no query.
        given.pop("extra_headers", None)
        given.pop("extra_query", None)
        self.timeout = _timeout(given.pop("timeout", None))
        self.adapter: Adapter | None = given.pop("adapter", None)
        self.scale: float = given.pop("adapter_scale", 1.0)
        self.model = str(given.get("model", ""))
        extra = given.pop("extra_body", None)
        self.body = write({**given, **(extra or {})})

    def adapted(self, model: Model, adapter: Adapter) -> Service:
        return Service(model.adapted(adapter, scale=self.scale), strict=True)


class _Sync:
    """Calls that block the thread."""

    def __init__(self, source: Realm | Model) -> None:
        self.source, self.service = source, Service(source, strict=True)

    def post(self, path: str, options: dict[str, Any]) -> Any:
        call, service = _Call(options), self.service
        if call.adapter is not None:
            service = call.adapted(service.model(call.model), call.adapter)
        found = _answer(service.handle("POST", path, call.body, timeout=call.timeout))
        return Stream(found, call.timeout) if isinstance(found, Events) else found

    def get(self, path: str) -> Any:
        return _answer(self.service.handle("GET", path, b""))


class _Async:
    """Calls that are awaited."""

    def __init__(self, source: Realm | Model) -> None:
        self.source, self.service = source, Service(source, strict=True)

    async def post(self, path: str, options: dict[str, Any]) -> Any:
        import asyncio

        call, service = _Call(options), self.service
        async with asyncio.timeout(call.timeout):
            if call.adapter is not None:
                service = call.adapted(await service.model_async(call.model), call.adapter)
            found = _answer(await service.handle_async("POST", path, call.body))
        return AsyncStream(found, call.timeout) if isinstance(found, Events) else found

    async def get(self, path: str) -> Any:
        return _answer(await self.service.handle_async("GET", path, b""))


class _Resource:
    """A part of a client. Further attributes are those of OpenAI's own client, if that is installed."""

    _real_path = ""

    def __init__(self, calls: Any) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        asynchronous = isinstance(self._calls, _Async)
        try:
            real: Any = (async_client if asynchronous else client)(self._calls.source)
        except ImportError:
            what = "async_client" if asynchronous else "client"
            why = f"realm.openai has no '{name}' here; realm.openai.{what} has it: pip install openai"
            raise AttributeError(why) from None
        for part in self._real_path.split("."):
            real = getattr(real, part) if part else real
        return getattr(real, name)


class Completions(_Resource):
    """`client.chat.completions`."""

    _real_path = "chat.completions"

    @overload
    def create(
        self, *, model: str, messages: Iterable[Any], stream: Literal[False] | None = False, **options: Any
    ) -> Object: ...

    @overload
    def create(self, *, model: str, messages: Iterable[Any], stream: Literal[True], **options: Any) -> Stream: ...

    @overload
    def create(
        self, *, model: str, messages: Iterable[Any], stream: bool | None, **options: Any
    ) -> Object | Stream: ...

    def create(
        self, *, model: str, messages: Iterable[Any], stream: bool | None = False, **options: Any
    ) -> Object | Stream:
        """Answers a conversation, whole or as a stream.

        Takes the arguments of OpenAI's API, those that vLLM's users pass in `extra_body`, and Realm's own `json_schema`,
        `regex`, `grammar`, `template_variables`, `shared_prefix`, `speculation`, `input`, `adapter` and `adapter_scale`.
        `timeout` is in seconds. Raises `realm.RealmError`, and `TypeError` for an unknown argument.
        """
        found: Object | Stream = self._calls.post(
            "/v1/chat/completions", {"model": model, "messages": messages, "stream": stream, **options}
        )
        return found


class AsyncCompletions(_Resource):
    """`client.chat.completions`, for tasks."""

    _real_path = "chat.completions"

    @overload
    async def create(
        self, *, model: str, messages: Iterable[Any], stream: Literal[False] | None = False, **options: Any
    ) -> Object: ...

    @overload
    async def create(
        self, *, model: str, messages: Iterable[Any], stream: Literal[True], **options: Any
    ) -> AsyncStream: ...

    @overload
    async def create(
        self, *, model: str, messages: Iterable[Any], stream: bool | None, **options: Any
    ) -> Object | AsyncStream: ...

    async def create(
        self, *, model: str, messages: Iterable[Any], stream: bool | None = False, **options: Any
    ) -> Object | AsyncStream:
        """Answers a conversation, whole or as a stream. Same as `Completions.create`."""
        found: Object | AsyncStream = await self._calls.post(
            "/v1/chat/completions", {"model": model, "messages": messages, "stream": stream, **options}
        )
        return found


class TextCompletions(_Resource):
    """`client.completions`."""

    _real_path = "completions"

    def create(self, *, model: str, prompt: Any, **options: Any) -> Any:
        """Continues a text, token ids, or a list of these: returns an `Object`, or a `Stream` with `stream=True`. With an
        `AsyncOpenAI`, the result is awaited."""
        return self._calls.post("/v1/completions", {"model": model, "prompt": prompt, **options})


class Embeddings(_Resource):
    """`client.embeddings`."""

    _real_path = "embeddings"

    def create(self, *, model: str, input: Any, **options: Any) -> Any:
        """Returns an embedding for each text. With an `AsyncOpenAI`, the result is awaited."""
        return self._calls.post("/v1/embeddings", {"model": model, "input": input, **options})


class Models(_Resource):
    """`client.models`."""

    _real_path = "models"

    def list(self) -> Any:
        """Returns the available models, in `data`. With an `AsyncOpenAI`, the result is awaited."""
        return self._calls.get("/v1/models")

    def retrieve(self, model: str) -> Any:
        """Returns one of the models. With an `AsyncOpenAI`, the result is awaited."""
        return self._calls.get(f"/v1/models/{model.replace('%', '%25').replace('/', '%2F')}")


class Chat(_Resource):
    """`client.chat`."""

    _real_path = "chat"

    def __init__(self, calls: Any) -> None:
        super().__init__(calls)
        self.completions = Completions(calls)


class AsyncChat(_Resource):
    """`client.chat`, for tasks."""

    _real_path = "chat"

    def __init__(self, calls: Any) -> None:
        super().__init__(calls)
        self.completions = AsyncCompletions(calls)


class OpenAI(_Resource):
    """A client with the models of a `Realm`, which are loaded when they are first named, or with one `Model`, whatever name
    a call has."""

    def __init__(self, source: Realm | Model) -> None:
        super().__init__(_Sync(source))
        self.chat = Chat(self._calls)
        self.completions = TextCompletions(self._calls)
        self.embeddings = Embeddings(self._calls)
        self.models = Models(self._calls)

    def close(self) -> None:
        """Does nothing: models are freed with their last reference."""

    def __enter__(self) -> OpenAI:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class AsyncOpenAI(_Resource):
    """Same as `OpenAI`, for tasks."""

    def __init__(self, source: Realm | Model) -> None:
        super().__init__(_Async(source))
        self.chat = AsyncChat(self._calls)
        self.completions = TextCompletions(self._calls)
        self.embeddings = Embeddings(self._calls)
        self.models = Models(self._calls)

    async def close(self) -> None:
        """Does nothing: models are freed with their last reference."""

    async def __aenter__(self) -> AsyncOpenAI:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()
