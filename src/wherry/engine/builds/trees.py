"""Fetched files that a client reads before a build: links in them cannot lead outside."""

from __future__ import annotations

import os
import stat as stat_
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import InvalidArgument, NotFound
from wherry.linux import syscalls

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_READ_MAX = 12 << 20
"""The limit of one answer in bytes; clients accept 16 MiB."""
_ENTRIES_MAX = 20_000


@dataclass(frozen=True)
class Looked:
    """The facts about one file. ``mode`` as in stat(2), ``mtime`` in nanoseconds."""

    name: str
    mode: int
    size: int
    mtime: int
    link: str = ""


@dataclass(frozen=True)
class CachedTree:
    """A directory of the cache that nobody changes."""

    directory: Path

    def _open(self, path: str, flags: int) -> int:
        root = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return syscalls.openat2(root, path.strip("/") or ".", flags | os.O_CLOEXEC, resolve=_IN_ROOT)
        except FileNotFoundError as e:
            raise NotFound(f"open {path}: no such file or directory") from e
        except OSError as e:
            raise InvalidArgument(f"open {path}: {e.strerror}") from e
        finally:
            os.close(root)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Blocks. :raises NotFound: no such file.
        :raises InvalidArgument: too large, or not a regular file."""
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat_.S_ISREG(status.st_mode):
                raise InvalidArgument(f"read {path}: is not a file")
            wanted = length or status.st_size - offset
            if wanted > _READ_MAX:
                raise InvalidArgument(f"read {path}: {wanted} bytes are more than {_READ_MAX}")
            return os.pread(fd, max(0, wanted), offset)
        finally:
            os.close(fd)

    def stat(self, path: str) -> Looked:
        """Blocks. :raises NotFound: no such file."""
        fd = self._open(path, os.O_PATH)
        try:
            return _stat(os.path.basename(path.rstrip("/")), os.fstat(fd), "")
        finally:
            os.close(fd)

    def names(self, path: str) -> Sequence[Looked]:
        """The names in a directory. Blocks."""
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = []
            for name in sorted(os.listdir(fd))[:_ENTRIES_MAX]:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                link = os.readlink(name, dir_fd=fd) if stat_.S_ISLNK(status.st_mode) else ""
                found.append(_stat(name, status, link))
            return found
        finally:
            os.close(fd)


def _stat(name: str, status: os.stat_result, link: str) -> Looked:
    return Looked(name, status.st_mode, status.st_size, status.st_mtime_ns, link)
