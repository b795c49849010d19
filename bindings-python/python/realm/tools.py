"""How programs' calls of the application's tools are made."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any


def run(
    function: Callable[[Any], Any], arguments: str, loop: asyncio.AbstractEventLoop | None
) -> str:
    """Calls `function` with JSON `arguments` and returns its answer as JSON. Runs on a thread of its own."""
    answer = function(json.loads(arguments))
    if inspect.isawaitable(answer):
        if loop is not None and not loop.is_closed():
            answer = asyncio.run_coroutine_threadsafe(_wait(answer), loop).result()
        else:
            answer = asyncio.run(_wait(answer))
    return json.dumps(answer)


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
