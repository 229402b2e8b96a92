"""Detect compressed streams by their first bytes, without reading their content: that is left to confined
children (:mod:`wherry.storage.confined.child.decompress`).
"""

from __future__ import annotations

from typing import Protocol

PLAIN, GZIP, ZSTD, BZIP2, XZ = "plain", "gzip", "zstd", "bzip2", "xz"
_MAGIC = (
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\x00", XZ),
)


def detect(head: bytes) -> str:
    """The compression of a stream, from its first 6 bytes; ``plain`` if none is recognised."""
    if head[:4] in [bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60)]:
        return ZSTD  # a skippable frame
    return next((name for magic, name in _MAGIC if head.startswith(magic)), PLAIN)


class Readable(Protocol):
    """The minimal interface of a binary file: ``read`` returns no bytes only at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


def read_head(stream: Readable) -> bytes:
    """The first 6 bytes, for :func:`detect`; fewer if the stream is shorter."""
    head = b""
    while len(head) < 6 and (piece := stream.read(6 - len(head))):
        head += piece
    return head


class Rejoined:
    """A head that was read already, followed by the rest of its stream."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if self._head and size >= 0:
            taken, self._head = self._head[:size], self._head[size:]
            return taken
        taken, self._head = self._head, b""
        return taken + self._stream.read(size)
