"""inotify(7): the kernel reports changes of files, so that nothing polls."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO = 0x2, 0x8, 0x80
IN_ONESHOT = 0x8000_0000


@dataclass(frozen=True)
class FileEvent:
    watch: int
    mask: int
    name: str


class Inotify:
    """A non-blocking inotify descriptor; close it when done."""

    def __init__(self) -> None:
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))

    def watch(self, path: str, mask: int) -> int:
        """Add a watch and return its descriptor. :raises OSError: as inotify_add_watch(2)."""
        result: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        if result < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), path)
        return result

    def unwatch(self, watch: int) -> None:
        """Remove a watch; if it is gone already (the file was removed,
        its one event came), nothing happens."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[FileEvent]:
        """The events since the last call; empty if there were none."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        events, offset = [], 0
        while offset < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            events.append(FileEvent(watch, mask, os.fsdecode(name)))
            offset += length
        return events

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
