"""Doorbells: the way to tell an event loop that its tasks can continue."""

from __future__ import annotations

import asyncio
import weakref

from realm import _realm

# A loop owns its bell by watching it. Both references are weak, since a bell that outlived its loop would keep waiting tasks.
_BELLS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[object]] = weakref.WeakKeyDictionary()
# Loops that cannot watch sockets.
_DEAF: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def doorbell(loop: asyncio.AbstractEventLoop) -> object:
    """Returns the loop's doorbell; `None` if the loop cannot watch sockets: then a thread of Realm's notifies it."""
    known = _BELLS.get(loop)
    bell = known() if known is not None else None
    if bell is not None or loop in _DEAF or not hasattr(_realm, "Doorbell"):
        return bell
    new = _realm.Doorbell()
    try:
        loop.add_reader(new.fileno(), new)
    except NotImplementedError:
        _DEAF.add(loop)
        return None
    _BELLS[loop] = weakref.ref(new)
    return new
