"""A directory as a build context: its listing, and an archive of the files that the daemon lacks.

The daemon keeps contexts (see ``storage.contexts``). It receives a list of the current files, one line each,
and answers which ones it needs. So if one of twenty thousand files has changed, only that one is read and
sent.
"""

from __future__ import annotations

import os
import stat

from wherry.errors import InvalidArgument
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.tarwriter import TarMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from wherry.model.ignore import Patterns

    Entry = tuple[bytes, bytes, os.stat_result, bytes]
    """Path in the context, kind (f, d, l, o; h for another name of an earlier file), status, target of a
    link."""

_PIECE = 1 << 20
_BATCH = 256 << 10
_KINDS = {stat.S_IFREG: b"f", stat.S_IFDIR: b"d", stat.S_IFLNK: b"l", stat.S_IFIFO: b"o"}


class LocalContext:
    """One directory. ``keep`` are files that are sent although they are ignored."""

    def __init__(self, directory: str, ignored: Patterns | None = None, keep: Sequence[str] = ()) -> None:
        self.directory = os.fsencode(directory)
        self._ignored, self._keep = ignored, frozenset(map(os.fsencode, keep))
        self.entries: list[Entry] = []

    @property
    def key(self) -> str:
        """The key under which the daemon keeps it: made from this machine and this directory."""
        import hashlib

        where = os.uname().nodename.encode() + b"\0" + os.path.realpath(self.directory)
        return hashlib.sha256(where).hexdigest()

    def scan(self) -> None:
        """Walk through everything that is not ignored. :raises InvalidArgument: a directory
        cannot be read."""
        pending = [b""]
        found = _Found()
        self.entries = found.entries
        while pending:
            inside = pending.pop()
            here = os.path.join(self.directory, inside) if inside else self.directory
            try:
                with os.scandir(here) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as e:
                raise InvalidArgument(
                    f"error checking context: cannot read {os.fsdecode(here)}: {e.strerror}"
                ) from e
            directories: list[bytes] = []
            for entry in entries:
                path = inside + b"/" + entry.name if inside else entry.name
                try:
                    self._entry(entry, path, found, directories)
                except FileNotFoundError:
                    continue  # it was removed since it was listed
            pending += reversed(directories)

    def _entry(self, entry: os.DirEntry[bytes], path: bytes, found: _Found, directories: list[bytes]) -> None:
        is_directory = entry.is_dir(follow_symlinks=False)
        if self._ignored is not None and path not in self._keep:
            text = os.fsdecode(path)
            if is_directory and self._ignored.skippable(text) and not self._keeps_below(path):
                return
            if self._ignored.excluded(text):
                if is_directory:
                    directories.append(path)
                    found.withheld[path] = entry.stat(follow_symlinks=False)
                return
        status = entry.stat(follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # sockets are useless elsewhere, and contexts contain no devices
        target = os.readlink(entry.path) if kind == b"l" else b""
        found.add(path, kind, status, target)
        if is_directory:
            directories.append(path)

    def _keeps_below(self, path: bytes) -> bool:
        return any(kept.startswith(path + b"/") for kept in self._keep)

    def manifest(self) -> bytes:
        """Seven fields for each entry, each ended by NUL; see ``storage.contexts``."""
        parts: list[bytes] = []
        for path, kind, status, target in self.entries:
            file = kind in (b"f", b"h")
            size = status.st_size if file else 0
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if file else (0, 0, 0)
            parts.append(
                b"%s\0%s\0%o\0%d\0%d\0%s\0%d.%d.%d\0"
                % (path, kind, stat.S_IMODE(status.st_mode), size, _seconds(status, kind), target, *stamp)
            )
        return b"".join(parts)

    def archive(self, positions: Iterable[int] | None = None) -> Iterator[bytes]:
        """A tar of the entries at these positions, all of them by default.

        :raises InvalidArgument: a file cannot be read; the archive is then not whole.
        """
        chosen = self.entries if positions is None else [self.entries[n] for n in positions]
        held: list[bytes] = []
        size = 0
        for entry in chosen:
            try:
                for piece in self._pieces(*entry):
                    held.append(piece)
                    size += len(piece)
                    if size >= _BATCH:
                        yield b"".join(held)
                        held, size = [], 0
            except OSError as e:
                raise InvalidArgument(f"cannot read {os.fsdecode(entry[0])}: {e.strerror}") from e
        yield b"".join([*held, tarwriter.END])

    def _pieces(self, path: bytes, kind: bytes, status: os.stat_result, target: bytes) -> Iterator[bytes]:
        mode, mtime = stat.S_IMODE(status.st_mode), _seconds(status, kind)
        if kind == b"d":
            yield tarwriter.header(TarMember(name=path + b"/", type=tf.DIRECTORY, mode=mode, mtime=mtime))
        elif kind == b"l":
            yield tarwriter.header(
                TarMember(name=path, type=tf.SYMLINK, mode=0o777, mtime=mtime, linkname=target)
            )
        elif kind == b"h":
            yield tarwriter.header(
                TarMember(name=path, type=tf.LINK, mode=mode, mtime=mtime, linkname=target)
            )
        elif kind == b"o":
            yield tarwriter.header(TarMember(name=path, type=tf.FIFO, mode=mode, mtime=mtime))
        else:
            yield from self._file(path, mode, mtime)

    def _file(self, path: bytes, mode: int, mtime: int) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(self.directory, path), flags)
        try:
            size = os.fstat(fd).st_size
            parts = _data(fd, size)
            yield tarwriter.header(
                TarMember(name=path, type=tf.FILE, mode=mode, mtime=mtime, size=size, sparse=parts)
            )
            written = 0
            for offset, length in parts if parts is not None else ((0, size),):
                while length:
                    piece = os.pread(fd, min(length, _PIECE), offset) or bytes(min(length, _PIECE))
                    yield piece
                    offset, length, written = offset + len(piece), length - len(piece), written + len(piece)
            yield tarwriter.padding(written)
        finally:
            os.close(fd)


class _Found:
    """The entries that a walk has found. If something in an ignored directory is included, the directory
    itself is as well, because its entry has its mode. Another name of a file is a hard link (``h``) to the
    first one."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.withheld: dict[bytes, os.stat_result] = {}
        self._first: dict[tuple[int, int], bytes] = {}

    def add(self, path: bytes, kind: bytes, status: os.stat_result, target: bytes) -> None:
        if self.withheld:
            self._add_above(path)
        if kind == b"f" and status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                kind, target = b"h", first
        self.entries.append((path, kind, status, target))

    def _add_above(self, path: bytes) -> None:
        above = []
        while path := path.rpartition(b"/")[0]:
            status = self.withheld.pop(path, None)
            if status is not None:
                above.append((path, b"d", status, b""))
        self.entries += reversed(above)


def _seconds(status: os.stat_result, kind: bytes) -> int:
    """Modification time in whole seconds, as in archives; 0 for links, where it does not matter."""
    return 0 if kind == b"l" else status.st_mtime_ns // 10**9 * 10**9


def _data(fd: int, size: int) -> tuple[tuple[int, int], ...] | None:
    """Where a file with holes has data; ``None`` for one without (lseek(2), SEEK_DATA)."""
    if os.fstat(fd).st_blocks * 512 >= size:
        return None
    parts: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break  # only a hole remains
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        if begin < at:
            parts.append((begin, at - begin))
    return None if parts == [(0, size)] else tuple(parts)
