"""Reading and writing small files without :mod:`pathlib`, whose import costs more than a request."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` to a blocking descriptor.

    :raises OSError: as write(2); BrokenPipeError when nobody reads any more.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_file(path: str, *, most: int = -1) -> bytes:
    """A whole file, or its first ``most`` bytes. :raises OSError: as open(2) and read(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        left = most
        while piece := os.read(descriptor, 1 << 20 if most < 0 else min(left, 1 << 20)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def write_file(path: str, pieces: Iterable[bytes]) -> None:
    """Write these bytes to a file, replacing its content. :raises OSError: as open(2) and write(2)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
    finally:
        os.close(descriptor)
