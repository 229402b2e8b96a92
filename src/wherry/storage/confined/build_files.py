"""The file operations of builds. Each runs in its own confined child
(:mod:`wherry.storage.confined.child.build_files`), except for reading one small file.

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
from wherry.storage.confined import children
from wherry.storage.confined.children import Ending
from wherry.storage.selection import Wanted

_MODULE = "wherry.storage.confined.child.build_files"
_READ_MAX = 8 << 20
_WRONG = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EXDEV, errno.ENOENT}
)


class MissingSource(NotFound):
    """A source that does not exist; ``path`` as written in the Dockerfile."""

    def __init__(self, path: str, where: str = "") -> None:
        self.path = path
        super().__init__(f'{where}"/{path.strip("/")}": not found')


@dataclass(frozen=True)
class Part:
    """Sources of one tree, which ``mount`` makes available; ``unpack``: unpack sources that are archives."""

    mount: Mount
    wanted: Wanted
    unpack: bool = False


@dataclass(frozen=True)
class CopyJob:
    """One COPY or ADD. ``files``: (name, content) of here-documents; ``owners``: keep the sources' owners.

    ``strict``: follow no link in the destination.
    """

    path: str
    into: bool
    parts: Sequence[Part] = ()
    files: Sequence[tuple[str, str]] = ()
    chown: str = ""
    chmod: str = ""
    owners: bool = False
    strict: bool = False
    mtime: int = 0


def copy(destination: Mount, job: CopyJob, *, what: str, ending: Ending) -> bool:
    """Returns whether that changed anything.

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
        "unpack": [part.unpack for part in job.parts],
        "strict": job.strict,
        "mtime": job.mtime,
    }
    return _run("copy", document, what=what, ending=ending)[1] == b"1"


def make_directory(destination: Mount, path: str, owner: str, *, what: str, ending: Ending) -> bool:
    """Returns whether it was missing. Raises what :func:`copy` raises."""
    document = {"destination": destination.fields, "path": path, "owner": owner}
    return _run("directory", document, what=what, ending=ending)[1] == b"1"


def checksum(source: Mount, wanted: Wanted, *, owners: bool, what: str, ending: Ending) -> str:
    """See :func:`wherry.storage.selection.checksum`. :raises MissingSource: see there."""
    document = {"sources": [source.fields], "wanted": _wanted(wanted), "owners": owners}
    return _run("checksum", document, what=what, ending=ending)[1].decode()


def checksum_at(source: Mount, path: str, *, what: str, ending: Ending) -> tuple[str, bool]:
    """The checksum of everything at one path, and whether it is a directory.
    :raises MissingSource: see there."""
    document = {"sources": [source.fields], "path": path}
    fields = _run("checksum", document, what=what, ending=ending)
    return fields[1].decode(), fields[2] == b"d"


def read(directory: Path, path: str, *, what: str) -> bytes:
    """Read one small file; links are followed within its tree. No child is needed: the bytes are not parsed.

    :raises MissingSource: it does not exist. :raises InvalidArgument: not a regular file, or too large.
    """
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    with ExitStack() as held:
        try:
            top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, top)
            # Check the type before opening: opening a FIFO blocks, and opening a device has side effects.
            found = syscalls.openat2(top, path, os.O_PATH, resolve=resolve)
            held.callback(os.close, found)
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise InvalidArgument(f"{what}: it is not a file")
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

    :param entries: called with members, seven fields each: name, type, mode (octal), size, mtime (ns), link
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
