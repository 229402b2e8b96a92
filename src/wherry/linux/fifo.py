"""Write to the reader of a named pipe (fifo(7)) without ever blocking."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

_INT = struct.Struct("i")


def write(path: Path, message: bytes) -> None:
    """:raises OSError: ENXIO if nobody has it open for reading, EAGAIN if it is full."""
    # NONBLOCK: otherwise opening a FIFO without a reader would block for ever.
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, message)
    finally:
        os.close(fd)


def unread(path: Path) -> int:
    """The number of bytes that the reader has not read yet. :raises OSError: as :func:`write`."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        count: int = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size)))[0]
        return count
    finally:
        os.close(fd)
