"""Local files as a tar stream, for ``cp`` into a container, and for volumes."""

from __future__ import annotations

import os
import stat

from wherry.errors import InvalidArgument
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.tarwriter import Kinds, member_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
_SMALL = 256 << 10


class Packer:
    """Iterate over the archive's bytes. ``inside`` is the name of ``path`` in the archive."""

    def __init__(self, path: str, inside: str, *, follow: bool, whole: bool = False) -> None:
        """:param follow: follow a symbolic link at ``path`` itself; links below are never followed.
        :param whole: also keep all extended attributes, and times in nanoseconds, which ``cp`` does not.
        """
        self._whole = whole
        self._path, self._inside, self._follow = os.fsencode(path), os.fsencode(inside), follow
        self._kinds = Kinds()

    def __iter__(self) -> Iterator[bytes]:
        """:raises InvalidArgument: a file cannot be read; the archive is then incomplete."""
        held: list[bytes] = []
        size = 0
        for piece in self._pieces():
            held.append(piece)
            size += len(piece)
            if size >= _SMALL:
                yield held[0] if len(held) == 1 else b"".join(held)
                held, size = [], 0
        yield b"".join([*held, tarwriter.END])

    def _pieces(self) -> Iterator[bytes]:
        pending = [(self._path, self._inside)]
        while pending:
            path, inside = pending.pop()
            try:
                first = path == self._path and self._follow
                status = os.stat(path, follow_symlinks=first)
                if stat.S_ISDIR(status.st_mode):
                    yield self._header(path, inside + b"/", tf.DIRECTORY, status)
                    names = sorted(os.listdir(path), reverse=True)
                    pending += [(os.path.join(path, n), inside + b"/" + n) for n in names]
                else:
                    yield from self._entry(path, inside, status)
            except FileNotFoundError:
                if path == self._path:
                    raise
            except OSError as e:
                raise InvalidArgument(f"cannot read {os.fsdecode(path)}: {e.strerror}") from e

    def _entry(self, path: bytes, inside: bytes, status: os.stat_result) -> Iterator[bytes]:
        kind, first = self._kinds.of(inside, status)
        if kind == tf.FILE:
            yield from _file(path, inside, whole=self._whole)
        elif kind == tf.SYMLINK:
            yield self._header(path, inside, kind, status, os.readlink(path))
        elif kind:
            yield self._header(path, inside, kind, status, first)

    def _header(
        self, path: bytes, inside: bytes, kind: bytes, status: os.stat_result, linkname: bytes = b""
    ) -> bytes:
        xattrs = _xattrs(path) if self._whole and kind != tf.LINK else {}
        member = member_of(inside, kind, status, linkname=linkname, xattrs=xattrs, exact=self._whole)
        return tarwriter.header(member)


def _file(path: bytes, inside: bytes, *, whole: bool) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return  # it was replaced by another kind of file since it was listed
        size = status.st_size
        xattrs = _xattrs(fd) if whole else _capability(fd)
        yield tarwriter.header(member_of(inside, tf.FILE, status, size=size, xattrs=xattrs, exact=whole))
        left = size
        while left:
            piece = os.read(fd, min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece
        if size % tf.BLOCK:
            yield tarwriter.padding(size)
    finally:
        os.close(fd)


def _xattrs(of: int | bytes) -> dict[bytes, bytes]:
    """All of a file; those of a symbolic link are its own."""
    found = {}
    follow = isinstance(of, int)
    try:
        for name in os.listxattr(of, follow_symlinks=follow):
            found[os.fsencode(name)] = os.getxattr(of, name, follow_symlinks=follow)
    except OSError:  # a file system without them, or one that went meanwhile
        return found
    return found


def _capability(fd: int) -> dict[bytes, bytes]:
    try:
        return {b"security.capability": os.getxattr(fd, "security.capability")}
    except OSError:
        return {}
