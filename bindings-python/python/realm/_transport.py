"""Realm as a transport of `httpx` and `httpx2`. Neither is imported here: the caller that passes a request has one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

from realm._realm import Answer, Events, Model, Realm, Service

_DONE = b"data: [DONE]\n\n"


class RealmTransport:
    """Answers the calls of OpenAI's clients in this process: a `transport` of `httpx.Client`, `httpx.AsyncClient` and those
    of `httpx2`.

    It uses the models of a `Realm`, which are loaded when they are first named, or one `Model`, whatever name a call has.
    Any number of clients may share a transport. A client that leaves a stream, a cancelled task and a timeout end the
    request.
    """

    def __init__(self, source: Realm | Model) -> None:
        self._service = Service(source)

    def handle_request(self, request: Any) -> Any:
        """Answers a call."""
        body, seconds = request.read(), _seconds(request)
        try:
            answer = self._service.handle(request.method, _path(request), body, timeout=seconds)
        except TimeoutError as error:
            raise _too_late(request) from error
        return _response(answer, request)

    async def handle_async_request(self, request: Any) -> Any:
        """Answers a call, in a task."""
        body = await request.aread()
        try:
            async with asyncio.timeout(_seconds(request)):
                answer = await self._service.handle_async(request.method, _path(request), body)
        except TimeoutError as error:
            raise _too_late(request) from error
        return _response(answer, request)

    def close(self) -> None:
        """Does nothing: other clients may share the transport, and models are freed with their last reference."""

    async def aclose(self) -> None:
        """Does nothing, like `close`."""

    def __enter__(self) -> RealmTransport:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    async def __aenter__(self) -> RealmTransport:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        pass


def _library(request: Any) -> ModuleType:
    """Returns the package of a request: `httpx` or `httpx2`."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def _path(request: Any) -> str:
    path: bytes = request.url.raw_path
    return path.decode("ascii")


def _seconds(request: Any) -> float | None:
    """Returns the client's time limit for a read, in seconds; `None` for no limit."""
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _too_late(request: Any) -> Exception:
    error: Exception = _library(request).ReadTimeout("the model did not answer in time", request=request)
    return error


def _response(answer: Answer, request: Any) -> Any:
    library = _library(request)
    if answer.events is not None:
        stream = _stream_class(library)(answer.events, request)
        return library.Response(answer.status, headers=answer.headers, stream=stream, request=request)
    body = (answer.body or "").encode()
    return library.Response(answer.status, headers=answer.headers, content=body, request=request)


class _Stream:
    """The events, as they are sent over HTTP."""

    def __init__(self, events: Events, request: Any) -> None:
        self._events, self._request, self._seconds = events, request, _seconds(request)

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (event := self._events.next(timeout=self._seconds)) is not None:
                yield f"data: {event}\n\n".encode()
        except TimeoutError as error:
            self.close()
            raise _too_late(self._request) from error
        yield _DONE

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    event = await self._events.next_async()
            except TimeoutError as error:
                self.close()
                raise _too_late(self._request) from error
            if event is None:
                break
            yield f"data: {event}\n\n".encode()
        yield _DONE

    def close(self) -> None:
        self._events.cancel()

    async def aclose(self) -> None:
        self._events.cancel()


_STREAMS: dict[ModuleType, type[_Stream]] = {}


def _stream_class(library: ModuleType) -> type[_Stream]:
    """Returns a stream class for a package, which checks the classes of streams."""
    if library not in _STREAMS:
        bases = (_Stream, library.SyncByteStream, library.AsyncByteStream)
        _STREAMS[library] = type("RealmStream", bases, {})
    return _STREAMS[library]
