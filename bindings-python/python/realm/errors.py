"""Realm's errors: `RealmError`, with a stable `code`, and a class for each code.

Some are also the built-in exceptions that Python code expects: a `NotFoundError` is a `LookupError`, an
`InvalidArgumentError` a `ValueError`, an `IoError` an `OSError`.
"""

from __future__ import annotations


class RealmError(Exception):
    """An error: `code` for programs, `message` for people."""

    code: str = "internal"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class InvalidModelError(RealmError):
    """A model's file is malformed or contradicts itself."""

    code = "invalid-model"


class InvalidAdapterError(RealmError):
    """An adapter's file is malformed, contradicts itself or does not fit the model."""

    code = "invalid-adapter"


class InvalidArgumentError(RealmError, ValueError):
    """An argument is out of range or contradicts another."""

    code = "invalid-argument"


class LimitExceededError(RealmError):
    """A request is larger than its own limits or its tenant's allow."""

    code = "limit-exceeded"


class OverloadedError(RealmError):
    """Too many requests wait already. Try again later."""

    code = "overloaded"


class UnsupportedError(RealmError):
    """Realm does not support the file, device or option."""

    code = "unsupported"


class NotFoundError(RealmError, LookupError):
    """The model or file does not exist."""

    code = "not-found"


class IoError(RealmError, OSError):
    """Reading, writing or fetching failed."""

    code = "io"


class InvalidProgramError(RealmError):
    """A program is not WebAssembly that Realm can run."""

    code = "invalid-program"


class TrapError(RealmError):
    """A program broke a rule of WebAssembly, or panicked."""

    code = "trap"


class FailedError(RealmError):
    """A program, or a tool that it called, reported that it failed."""

    code = "failed"


class DeniedError(RealmError, PermissionError):
    """A program used something that its tenant was not granted."""

    code = "denied"


class CancelledError(RealmError):
    """The request was cancelled."""

    code = "cancelled"


class InternalError(RealmError):
    """Realm itself failed."""

    code = "internal"


BY_CODE: dict[str, type[RealmError]] = {
    error.code: error
    for error in (
        InvalidModelError,
        InvalidAdapterError,
        InvalidArgumentError,
        LimitExceededError,
        OverloadedError,
        UnsupportedError,
        NotFoundError,
        IoError,
        InvalidProgramError,
        TrapError,
        FailedError,
        DeniedError,
        CancelledError,
        InternalError,
    )
}
"""The class for each code."""
