"""Where programs' logs go with `Grants(log=True)`."""

from __future__ import annotations

import logging

_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


def to_logging(tenant: str, level: str, message: str) -> None:
    """Writes a line to the logger `realm.program`; its record has the attribute `tenant`."""
    logging.getLogger("realm.program").log(_LEVELS[level], "%s: %s", tenant, message, extra={"tenant": tenant})
