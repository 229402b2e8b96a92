"""Typed decoding for many threads.

msgspec learns what a type is made of when that is first used, and hangs what it has learnt on the type before
it is complete: another thread that decodes something with the same part in that moment reads a null pointer,
and the process ends (0.22). So every type is learnt whole, by one thread at a time, before anything is
decoded into it; and nothing is decoded into types by msgspec directly (``tests/test_architecture.py``).
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_lock = threading.Lock()
_known: set[Any] = set()


def from_json(data: bytes | bytearray | memoryview | str, kind: type[T]) -> T:
    """Decode JSON into ``kind``. Raises as ``msgspec.json.decode``."""
    if kind not in _known:
        _learn(kind)
    return msgspec.json.decode(data, type=kind)


def from_builtins(value: Any, kind: type[T]) -> T:
    """Convert decoded JSON into ``kind``. Raises as ``msgspec.convert``."""
    if kind not in _known:
        _learn(kind)
    return msgspec.convert(value, kind)


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """What decodes into ``kind``, quicker the second time."""
    with _lock:
        made = msgspec.json.Decoder(kind)
        _known.add(kind)
    return made


def _learn(kind: Any) -> None:
    decoder(kind)
