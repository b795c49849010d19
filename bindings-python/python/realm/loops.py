"""How event loops are told that tasks can go on."""

from __future__ import annotations

import asyncio
import weakref

from realm import _realm

_BELLS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = weakref.WeakKeyDictionary()


def doorbell(loop: asyncio.AbstractEventLoop) -> object:
    """The loop's doorbell; `None` if it can't watch sockets: then a thread of Realm's tells it."""
    if loop in _BELLS:
        return _BELLS[loop]
    bell = None
    if hasattr(_realm, "Doorbell"):
        bell = _realm.Doorbell()
        try:
            loop.add_reader(bell.fileno(), bell)
        except NotImplementedError:
            bell = None
    _BELLS[loop] = bell
    return bell
