"""JSON objects whose fields are attributes, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Fields that OpenAI's objects have and that answers leave out where there is nothing to say.
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
    """An answer, or a part of one: a `dict` of what the protocol has, whose fields are attributes, too. Of what OpenAI's
    objects may leave out, an attribute is `None`."""

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
        """As nested dictionaries. Further options of pydantic's change nothing."""
        return {name: _plain(value, exclude_none) for name, value in self.items() if value is not None or not exclude_none}

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False, **_options: Any) -> str:
        """As JSON. Further options of pydantic's change nothing."""
        return json.dumps(self.model_dump(exclude_none=exclude_none), indent=indent, ensure_ascii=False)

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """As nested dictionaries."""
        return self.model_dump(**options)

    def to_json(self, *, indent: int | None = 2, **options: Any) -> str:
        """As JSON."""
        return self.model_dump_json(indent=indent, **options)


def _plain(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, Object):
        return value.model_dump(exclude_none=exclude_none)
    if isinstance(value, list):
        return [_plain(item, exclude_none) for item in value]
    return value


def read(text: str) -> Any:
    """JSON as `Object`s."""
    return json.loads(text, object_hook=Object)


def write(value: Any) -> bytes:
    """A body as JSON: mappings, sequences, pydantic's models and answers of before may be anywhere in it."""
    return json.dumps(value, default=_jsonable).encode()


def _jsonable(value: Any) -> Any:
    # A model of pydantic's, as OpenAI's client returns them; a class of them is none.
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__iter__") and not isinstance(value, bytes | bytearray | type):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")
