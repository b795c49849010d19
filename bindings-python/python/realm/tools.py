"""Describes the application's tools to models, and calls them."""

from __future__ import annotations

import asyncio
import inspect
import json
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Union


def run(
    function: Callable[..., Any], arguments: str, loop: asyncio.AbstractEventLoop | None, keywords: bool
) -> str:
    """Calls `function` with JSON `arguments`, one value or `keywords`, and returns its answer as JSON. Runs on a thread
    of its own."""
    given = json.loads(arguments)
    if not keywords:
        answer = function(given)
    elif isinstance(given, dict):
        answer = function(**given)
    else:
        raise TypeError(f"the arguments have to be an object, not {arguments}")
    if inspect.isawaitable(answer):
        if loop is not None and not loop.is_closed():
            answer = asyncio.run_coroutine_threadsafe(_wait(answer), loop).result()
        else:
            answer = asyncio.run(_wait(answer))
    return json.dumps(answer)


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", tuple: "array", dict: "object"}


def definition(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns a function's definition as a tool, in OpenAI's format: its name, the first paragraph of its docstring, and
    its parameters, which are required unless they have defaults. Type hints become JSON Schema."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    properties, required = {}, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the tool '{name}' is called with keyword arguments; '{parameter.name}' can't be one")
        properties[parameter.name] = _schema(hints.get(parameter.name, Any))
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    about = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    described = {"description": about} if about else {}
    return {"type": "function", "function": {"name": name, **described, "parameters": parameters}}


def _schema(hint: Any) -> dict[str, Any]:
    """Returns the JSON Schema of a type hint; without a hint, the schema that allows anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each) for each in arguments]}
    if hint is type(None):
        return {"type": "null"}
    kind = _KINDS.get(origin or hint)
    if kind is None:
        return {}
    if kind == "array" and arguments:
        return {"type": kind, "items": _schema(arguments[0])}
    return {"type": kind}
