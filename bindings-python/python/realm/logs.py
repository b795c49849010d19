"""The functions behind `Grants(log=True)` and `log_to(True)`."""

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


def realm_to_logging(target: str, level: str, message: str) -> None:
    """Writes a line of Realm's own to the logger `realm`, or the one of its part, such as `realm.engine`."""
    name = target.replace("::", ".").replace("realm_", "realm.")
    logging.getLogger(name).log(_LEVELS[level], "%s", message)
