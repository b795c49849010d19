"""Realm runs many isolated tenants' AI programs on one copy of a model's weights, in this process.

    >>> import realm
    >>> model = realm.Realm().load_model("qwen2.5-coder-0.5b")
    >>> question = [{"role": "user", "content": "What is the capital of France?"}]
    >>> for chunk in model.stream(question, temperature=0):
    ...     print(chunk.text, end="")
    The capital of France is Paris.

Every call that waits exists twice: its plain name blocks the thread, without the GIL, and its name with `_async` is
awaited. A `Generation` takes both `for` and `async for`.
"""

from __future__ import annotations

import atexit as _atexit
import os as _os
from collections.abc import Sequence as _Sequence

from realm import _interpreter as _interpreter  # first: it refuses where the rest would crash
from realm import errors as errors
from realm import openai as openai
from realm._realm import (
    Adapter,
    Array,
    ChatSession,
    Chunk,
    Completion,
    FileInfo,
    Forwarded,
    Generation,
    Grants,
    Histogram,
    Hub,
    KvPages,
    Limits,
    MemoryUse,
    Metrics,
    Model,
    ModelInfo,
    ModelStatus,
    Program,
    ProgramInfo,
    ProgressEvent,
    Realm,
    Requests,
    Scored,
    Sequence,
    Served,
    Store,
    Tenant,
    TenantMetrics,
    Timings,
    Token,
    TokenLogprob,
    Tokenizer,
    Tokens,
    ToolCall,
    Usage,
    __version__,
    _after_fork,
    _at_exit,
    inspect,
    log_to,
)
from realm.errors import RealmError

__all__ = [
    "Adapter",
    "Array",
    "ChatSession",
    "Chunk",
    "Completion",
    "FileInfo",
    "Forwarded",
    "Generation",
    "Grants",
    "Histogram",
    "Hub",
    "KvPages",
    "Limits",
    "MemoryUse",
    "Metrics",
    "Model",
    "ModelInfo",
    "ModelStatus",
    "Program",
    "ProgramInfo",
    "ProgressEvent",
    "Realm",
    "RealmError",
    "Requests",
    "Scored",
    "Sequence",
    "Served",
    "Store",
    "Tenant",
    "TenantMetrics",
    "Timings",
    "Token",
    "TokenLogprob",
    "Tokenizer",
    "Tokens",
    "ToolCall",
    "Usage",
    "__version__",
    "errors",
    "inspect",
    "log_to",
    "openai",
]

_Sequence.register(Array)
_atexit.register(_at_exit)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_after_fork)
