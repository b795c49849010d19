"""JSON objects whose fields are also attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Fields of OpenAI's objects that answers leave out if they are empty.
_OPTIONAL = frozenset(
    (
        "annotations",
        "audio",
        "completion_tokens_details",
        "content",
        "finish_reason",
        "function_call",
        "logprobs",
        "prompt_tokens_details",
        "reasoning",
        "reasoning_content",
        "refusal",
        "role",
        "service_tier",
        "system_fingerprint",
        "tool_calls",
        "usage",
    )
)


class Object(dict[str, Any]):
    """An answer, or a part of one: a `dict` with the protocol's fields, which are also attributes. An optional field of
    OpenAI's objects that is missing is `None` as an attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name in _OPTIONAL:
                return None
            raise AttributeError(f"there is no field '{name}'; there are {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def __repr__(self) -> str:
        return f"Object({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def model_dump(self, *, exclude_none: bool = False, **_options: Any) -> dict[str, Any]:
        """Returns nested dictionaries. Further options of pydantic's change nothing."""
        return {name: _plain(value, exclude_none) for name, value in self.items() if value is not None or not exclude_none}

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False, **_options: Any) -> str:
        """Returns JSON. Further options of pydantic's change nothing."""
        return json.dumps(self.model_dump(exclude_none=exclude_none), indent=indent, ensure_ascii=False)

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """Returns nested dictionaries."""
        return self.model_dump(**options)

    def to_json(self, *, indent: int | None = 2, **options: Any) -> str:
        """Returns JSON."""
        return self.model_dump_json(indent=indent, **options)


def _plain(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, Object):
        return value.model_dump(exclude_none=exclude_none)
    if isinstance(value, list):
        return [_plain(item, exclude_none) for item in value]
    return value


def read(text: str) -> Any:
    """Parses JSON into `Object`s."""
    return json.loads(text, object_hook=Object)


def write(value: Any) -> bytes:
    """Returns a body as JSON: it may contain mappings, sequences, pydantic's models and earlier answers."""
    return json.dumps(value, default=_jsonable).encode()


def _jsonable(value: Any) -> Any:
    # A model of pydantic's, as OpenAI's client returns them, but not a class of such models.
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__iter__") and not isinstance(value, bytes | bytearray | type):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")
