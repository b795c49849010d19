"""Realm as what `httpx` sends its calls through. Importing this needs `httpx`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx

from realm._realm import Answer, Events, Model, Realm, Service

_DONE = b"data: [DONE]\n\n"


class RealmTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers the calls of OpenAI's clients in this process: a transport for `httpx.Client` and for `httpx.AsyncClient`.

    Asks the models of a `Realm`, which are loaded when they are first named, or one `Model`, whatever the name. Any number
    of clients may share one. A client that leaves a stream, a task that is cancelled and a timeout end the request.
    """

    def __init__(self, source: Realm | Model) -> None:
        self._service = Service(source)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answers a call."""
        seconds = _seconds(request)
        body = request.read()
        try:
            answer = self._service.handle(request.method, _path(request), body, timeout=seconds)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        return _response(answer, request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answers a call, in a task."""
        body = await request.aread()
        try:
            async with asyncio.timeout(_seconds(request)):
                answer = await self._service.handle_async(request.method, _path(request), body)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the model did not answer in time", request=request) from error
        return _response(answer, request)


def _path(request: httpx.Request) -> str:
    return request.url.raw_path.decode("ascii")


def _seconds(request: httpx.Request) -> float | None:
    """How long httpx waits for something to read; `None` for as long as it takes."""
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _response(answer: Answer, request: httpx.Request) -> httpx.Response:
    if answer.events is not None:
        stream = _Stream(answer.events, request)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream, request=request)
    body = (answer.body or "").encode()
    return httpx.Response(answer.status, headers=answer.headers, content=body, request=request)


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Events as they are sent over HTTP."""

    def __init__(self, events: Events, request: httpx.Request) -> None:
        self._events, self._request, self._seconds = events, request, _seconds(request)

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (event := self._events.next(timeout=self._seconds)) is not None:
                yield f"data: {event}\n\n".encode()
        except TimeoutError as error:
            self.close()
            raise httpx.ReadTimeout(str(error), request=self._request) from error
        yield _DONE

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    event = await self._events.next_async()
            except TimeoutError as error:
                self.close()
                raise httpx.ReadTimeout("the model did not go on in time", request=self._request) from error
            if event is None:
                break
            yield f"data: {event}\n\n".encode()
        yield _DONE

    def close(self) -> None:
        self._events.cancel()

    async def aclose(self) -> None:
        self._events.cancel()
