"""How event loops are told that tasks can go on."""

from __future__ import annotations

import asyncio
import weakref

from realm import _realm

# A loop owns its bell by watching it. Weak on both sides, since a bell that outlived its loop would keep the tasks that wait.
_BELLS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[object]] = weakref.WeakKeyDictionary()
# Loops that can't watch sockets.
_DEAF: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def doorbell(loop: asyncio.AbstractEventLoop) -> object:
    """The loop's doorbell; `None` if it can't watch sockets: then a thread of Realm's tells it."""
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
