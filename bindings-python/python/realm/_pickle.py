"""Restores objects for `pickle` that take only keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def rebuild(make: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Calls `make` with keyword arguments."""
    return make(**arguments)
