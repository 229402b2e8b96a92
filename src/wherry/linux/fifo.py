"""fifo(7): a word to whoever reads a named pipe, without ever waiting for it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

_INT = struct.Struct("i")


def write(path: Path, message: bytes) -> None:
    """:raises OSError: ENXIO when nobody has it open for reading, EAGAIN when it is full."""
    # NONBLOCK: opening a FIFO that nobody reads would wait forever otherwise.
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, message)
    finally:
        os.close(fd)


def unread(path: Path) -> int:
    """Bytes written that its reader has not taken. :raises OSError: as :func:`write`."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        count: int = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size)))[0]
        return count
    finally:
        os.close(fd)
