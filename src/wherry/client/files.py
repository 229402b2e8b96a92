"""Reading and writing small files without :mod:`pathlib`, whose import costs more than a request."""

from __future__ import annotations

import os


def read_file(path: str) -> bytes:
    """The whole of a file.

    :raises OSError: as open(2) and read(2).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` to a blocking descriptor.

    :raises OSError: as write(2); BrokenPipeError when nobody reads any more.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
