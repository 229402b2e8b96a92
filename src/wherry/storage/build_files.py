"""What builds do with files, but for a look at one of them each in a confined child of its own
(:mod:`wherry.storage.build_child`).

Calls block until the child has ended; :class:`Ending` ends it from another thread.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.linux import syscalls
from wherry.linux.pychild import DEVNULL
from wherry.model.mount import Mount
from wherry.storage import children
from wherry.storage.children import Ending
from wherry.storage.selection import Wanted

_MODULE = "wherry.storage.build_child"
_READ_MAX = 8 << 20
_WRONG = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EXDEV, errno.ENOENT}
)


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
        "destination": destination.fields,
        "sources": [part.mount.fields for part in job.parts],
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
    document = {"destination": destination.fields, "path": path, "owner": owner}
    return _run("directory", document, what=what, ending=ending)[1] == b"1"


def checksum(source: Mount, wanted: Wanted, *, owners: bool, what: str, ending: Ending) -> str:
    """See :func:`wherry.storage.selection.checksum`. :raises MissingSource: see there."""
    document = {"sources": [source.fields], "wanted": _wanted(wanted), "owners": owners}
    return _run("checksum", document, what=what, ending=ending)[1].decode()


def checksum_at(source: Mount, path: str, *, what: str, ending: Ending) -> tuple[str, bool]:
    """Of everything at one path, and whether that is a directory. :raises MissingSource: see there."""
    document = {"sources": [source.fields], "path": path}
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
    document = {"destination": directory.fields, "gone": list(gone)}
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
        last = children.run(
            _MODULE,
            (role, str(fd)),
            what=what,
            ending=ending,
            takers={b"entries": entries},
            stdin=stdin,
            fds=(fd,),
        )
    finally:
        os.close(fd)
    _check(last, what)
    return last


def _check(fields: list[bytes], what: str) -> None:
    kind = fields[0]
    if kind == b"ok":
        return
    if kind == b"missing":
        raise MissingSource(fields[-1].decode("utf-8", "surrogateescape"))
    if kind == b"refused":
        raise InvalidArgument(fields[-1].decode("utf-8", "replace"))
    children.fail(fields, what, wrong=_WRONG)


def _wanted(wanted: Wanted) -> dict[str, Any]:
    return {
        "sources": list(wanted.sources),
        "into": wanted.into,
        "parents": wanted.parents,
        "exclude": list(wanted.exclude),
        "hidden": list(wanted.hidden),
    }
