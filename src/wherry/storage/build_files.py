"""What builds do with files, but for a look at one of them each in a confined child of its own
(:mod:`wherry.storage.build_child`).

Calls block until the child has ended; :class:`Ending` ends it from another thread.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.errors import Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import syscalls
from wherry.linux.pychild import DEVNULL, PythonChild
from wherry.model.mount import Mount
from wherry.storage.selection import Wanted
from wherry.storage.unpack import child_paths

_MODULE = "wherry.storage.build_child"
_READ_MAX = 8 << 20
_WRONG = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EXDEV, errno.ENOENT}
)


class Ending:
    """Ends whatever child runs for it, now and from now on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: PythonChild | None = None
        self.ended = False

    def end(self) -> None:
        """From any thread."""
        with self._lock:
            self.ended = True
            if self._child is not None:
                self._child.kill()

    def hold(self, child: PythonChild | None) -> None:
        with self._lock:
            self._child = child
            if child is not None and self.ended:
                child.kill()


class MissingSource(NotFound):
    """A source that is not there; ``path`` as it was written."""

    def __init__(self, path: str, where: str = "") -> None:
        self.path = path
        super().__init__(f'{where}"/{path.strip("/")}": not found')


@dataclass(frozen=True)
class Part:
    """Sources of one tree, which is mounted as ``mount`` says."""

    mount: Mount
    wanted: Wanted


@dataclass(frozen=True)
class CopyJob:
    """One COPY or ADD. ``files`` are (name, content) of here-documents; ``owners`` keeps those of sources.

    ``strict`` follows no link of the destination. ``unpack`` unpacks sources that are archives.
    """

    path: str
    into: bool
    parts: Sequence[Part] = ()
    files: Sequence[tuple[str, str]] = ()
    chown: str = ""
    chmod: str = ""
    owners: bool = False
    unpack: bool = False
    strict: bool = False
    mtime: int = 0


def copy(destination: Mount, job: CopyJob, *, what: str, ending: Ending) -> bool:
    """Whether that changed anything.

    :raises MissingSource: see there. :raises InvalidArgument: it cannot be done, with the reason.
    :raises Unavailable: the disk is full.
    """
    document = {
        "destination": _fields(destination),
        "sources": [_fields(part.mount) for part in job.parts],
        "parts": [_wanted(part.wanted) for part in job.parts],
        "files": [list(pair) for pair in job.files],
        "path": job.path,
        "into": job.into,
        "chown": job.chown,
        "chmod": job.chmod,
        "owners": job.owners,
        "unpack": job.unpack,
        "strict": job.strict,
        "mtime": job.mtime,
    }
    return _run("copy", document, what=what, ending=ending)[1] == b"1"


def make_directory(destination: Mount, path: str, owner: str, *, what: str, ending: Ending) -> bool:
    """Whether it was not there. Raises as :func:`copy`."""
    document = {"destination": _fields(destination), "path": path, "owner": owner}
    return _run("directory", document, what=what, ending=ending)[1] == b"1"


def checksum(source: Mount, wanted: Wanted, *, owners: bool, what: str, ending: Ending) -> str:
    """See :func:`wherry.storage.selection.checksum`. :raises MissingSource: see there."""
    document = {"sources": [_fields(source)], "wanted": _wanted(wanted), "owners": owners}
    return _run("checksum", document, what=what, ending=ending)[1].decode()


def checksum_at(source: Mount, path: str, *, what: str, ending: Ending) -> tuple[str, bool]:
    """Of everything at one path, and whether that is a directory. :raises MissingSource: see there."""
    document = {"sources": [_fields(source)], "path": path}
    fields = _run("checksum", document, what=what, ending=ending)
    return fields[1].decode(), fields[2] == b"d"


def read(directory: Path, path: str, *, what: str) -> bytes:
    """One small file, links followed within its tree. Only its bytes are looked at, so no child is needed.

    :raises MissingSource: it is not there. :raises InvalidArgument: it is no file, or too large.
    """
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    with ExitStack() as held:
        try:
            top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, top)
            # By way of a look at what it is: opening a FIFO waits, and opening a device does something.
            found = syscalls.openat2(top, path, os.O_PATH, resolve=resolve)
            held.callback(os.close, found)
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise InvalidArgument(f"{what}: it is no file")
            fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, fd)
            data = b""
            while piece := os.read(fd, 1 << 20):
                data += piece
                if len(data) > _READ_MAX:
                    raise InvalidArgument(f"{what}: it has more than {_READ_MAX} bytes")
        except FileNotFoundError as e:
            raise MissingSource(path) from e
        except OSError as e:
            raise InvalidArgument(f"{what}: {(e.strerror or str(e)).lower()}") from e
    return data


def receive(
    directory: Mount,
    gone: Sequence[str],
    stream: int,
    entries: Callable[[Sequence[bytes]], None],
    *,
    what: str,
    ending: Ending,
) -> None:
    """Unpack a context from a descriptor, after removing ``gone``.

    :param entries: told of members, seven fields each: name, type, mode (octal), size, mtime (ns), link
        target, sha256.
    :raises InvalidArgument: the archive is broken or hostile.
    """
    document = {"destination": _fields(directory), "gone": list(gone)}
    _run("receive", document, what=what, ending=ending, stdin=stream, entries=entries)


def _run(
    role: str,
    document: dict[str, Any],
    *,
    what: str,
    ending: Ending,
    stdin: int = DEVNULL,
    entries: Callable[[Sequence[bytes]], None] = lambda _fields: None,
) -> list[bytes]:
    fd = os.memfd_create("build", os.MFD_CLOEXEC)
    try:
        os.write(fd, json.dumps(document).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        with PythonChild(
            _MODULE, (role, str(fd)), paths=child_paths(), stdin=stdin, stdout=DEVNULL, fds=(fd,)
        ) as child:
            ending.hold(child)
            last: list[bytes] | None = None
            try:
                while (frame := child.frame()) is not None:
                    fields = frame.split(b"\0")
                    if fields[0] == b"entries":
                        entries(fields[1:])
                    else:
                        last = fields
                _, code, errors = child.result()
            finally:
                ending.hold(None)
    finally:
        os.close(fd)
    if last is None:
        if ending.ended:
            raise Unavailable(f"{what}: it was broken off")
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        raise Internal(f"{what}: the helper ended early ({how}) {errors.strip()}".rstrip())
    _check(last, what)
    return last


def _check(fields: list[bytes], what: str) -> None:
    kind, reason = fields[0], fields[-1].decode("utf-8", "replace")
    if kind == b"ok":
        return
    if kind == b"missing":
        raise MissingSource(fields[-1].decode("utf-8", "surrogateescape"))
    if kind == b"refused":
        raise InvalidArgument(reason)
    if kind == b"bad":
        raise InvalidArgument(f"{what}: {reason}")
    number = int(fields[1])
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise Unavailable(f"{what}: {os.strerror(number).lower()}")
    if number in _WRONG:
        raise InvalidArgument(f"{what}: {reason}")
    raise Internal(f"{what}: {reason}")


def _fields(mount: Mount) -> list[object]:
    return [mount.type, mount.source, list(mount.options)]


def _wanted(wanted: Wanted) -> dict[str, Any]:
    return {
        "sources": list(wanted.sources),
        "into": wanted.into,
        "parents": wanted.parents,
        "exclude": list(wanted.exclude),
        "hidden": list(wanted.hidden),
    }
