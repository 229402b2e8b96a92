"""Local files as a tar stream, for ``cp`` into a container."""

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

    def __init__(self, path: str, inside: str, *, follow: bool) -> None:
        """:param follow: follow a symbolic link at ``path`` itself; links below are never followed."""
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
                    yield tarwriter.header(member_of(inside + b"/", tf.DIRECTORY, status))
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
            yield from _file(path, inside)
        elif kind == tf.SYMLINK:
            yield tarwriter.header(member_of(inside, kind, status, linkname=os.readlink(path)))
        elif kind:
            yield tarwriter.header(member_of(inside, kind, status, linkname=first))


def _file(path: bytes, inside: bytes) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return  # it was replaced by another kind of file since it was listed
        size = status.st_size
        yield tarwriter.header(member_of(inside, tf.FILE, status, size=size, xattrs=_capability(fd)))
        left = size
        while left:
            piece = os.read(fd, min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece
        if size % tf.BLOCK:
            yield tarwriter.padding(size)
    finally:
        os.close(fd)


def _capability(fd: int) -> dict[bytes, bytes]:
    try:
        return {b"security.capability": os.getxattr(fd, "security.capability")}
    except OSError:
        return {}
