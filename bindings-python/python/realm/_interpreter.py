"""Refuses interpreters that Realm does not work in."""

from __future__ import annotations

import importlib
from typing import Any


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue

        # Newer versions return a pair of the number and its origin.
        def number(found: Any) -> int:
            return int(found[0] if isinstance(found, tuple) else found)

        return number(interpreters.get_current()) == number(interpreters.get_main())
    return True


if not _is_main():
    raise ImportError(
        "realm does not work in a sub-interpreter, since its threads call back into the main one. Import it in the main "
        "interpreter (under mod_wsgi: `WSGIApplicationGroup %{GLOBAL}`), or in a process of its own"
    )
