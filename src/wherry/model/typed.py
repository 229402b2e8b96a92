"""Typed decoding for many threads.

msgspec analyses a type at its first use and attaches the result to the type before it is complete. If another
thread decodes something with the same type at that moment, it reads a null pointer and the process crashes
(msgspec 0.22). So every type is analysed by one thread at a time before anything is decoded into it, and no
other module lets msgspec decode into types directly (``tests/test_architecture.py``).
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


def from_msgpack(data: bytes, kind: type[T]) -> T:
    """Decode MessagePack into ``kind``. Raises as ``msgspec.msgpack.decode``."""
    if kind not in _known:
        _learn(kind)
    return msgspec.msgpack.decode(data, type=kind)


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder of JSON into ``kind``; it is faster than :func:`from_json` if it is used again."""
    with _lock:
        made = msgspec.json.Decoder(kind)
        _known.add(kind)
    return made


def _learn(kind: Any) -> None:
    decoder(kind)
