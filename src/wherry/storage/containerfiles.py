"""A container's files, read and written by confined children: what cp and export need of the storage.

Each call runs one child (:mod:`wherry.storage.files_child`) to its end on the calling thread, which must live
as long: the child dies with it. :class:`Job` ends it from elsewhere, when a client has gone.
"""

from __future__ import annotations

import errno
import os
import posixpath
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux.containerroot import Inside, Layer
from wherry.linux.pychild import DEVNULL, PythonChild
from wherry.model.mount import Mount
from wherry.storage import diff
from wherry.storage.files_changes import ENGINE_MADE
from wherry.storage.snapshots import Snapshotter
from wherry.storage.unpack import child_paths

_MODULE = "wherry.storage.files_child"
_NOT_THERE = (errno.ENOENT,)
_WRONG = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL, errno.EXDEV}
)


class ReadOnly(InvalidArgument):
    """The destination cannot be written to; ``rootfs`` says that it is the container's own root."""

    def __init__(self, rootfs: bool) -> None:
        self.rootfs = rootfs
        words = "container rootfs" if rootfs else "mounted volume"
        super().__init__(f"{words} is marked read-only")


@dataclass(frozen=True)
class PathStat:
    """``mode`` in the bits of Go's FileMode, ``mtime`` in nanoseconds, ``target`` of a symbolic link."""

    name: str
    size: int
    mode: int
    mtime: int
    target: str


@dataclass(frozen=True)
class FileChange:
    """``kind``: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class ContainerEnded(Conflict):
    """The container stopped before its files could be reached; nothing was read or written."""


@dataclass(frozen=True)
class Mounted:
    """A running container's layer where the daemon has it mounted; ``device`` and ``inode`` of its root."""

    directory: str
    device: int
    inode: int


View = Layer | Inside | Mounted
"""How a child gets in: a layer nobody has mounted, a running container's process, or its mounted root."""


class Job:
    """A child under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: PythonChild | None = None
        self._ended = False

    def end(self) -> None:
        """Kill the child, now or as soon as it is there; from any thread."""
        with self._lock:
            self._ended = True
            if self._child is not None:
                self._child.kill()

    def run(
        self,
        view: View,
        role: Sequence[str],
        *,
        what: str,
        stdin: int = DEVNULL,
        stdout: int = DEVNULL,
        on_stat: Callable[[PathStat], None] = lambda _stat: None,
        changes: list[FileChange] | None = None,
    ) -> None:
        """Run one child to its end.

        :param changes: takes what the role ``changes`` finds.
        :raises NotFound: the path is not there. :raises ContainerEnded, ReadOnly: see there.
        :raises InvalidArgument: the archive is broken or does not fit. :raises Unavailable: the disk is full.
        """
        fds = (view.pidfd,) if isinstance(view, Inside) else ()
        name, *rest = role
        arguments = (name, _encoded(view), *rest)
        child = PythonChild(_MODULE, arguments, paths=child_paths(), stdin=stdin, stdout=stdout, fds=fds)
        with child:
            with self._lock:
                self._child = child
                if self._ended:
                    child.kill()
            try:
                last = _follow(child, on_stat, changes)
                _, code, errors = child.result()
            finally:
                with self._lock:
                    self._child = None
        if last is None:
            if self._ended:
                raise Unavailable(f"{what}: it was broken off")
            ending = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            raise Internal(f"{what}: the helper ended early ({ending}) {errors.strip()}".rstrip())
        _check(last, what)


def _follow(
    child: PythonChild, on_stat: Callable[[PathStat], None], changes: list[FileChange] | None
) -> list[bytes] | None:
    last = None
    while (frame := child.frame()) is not None:
        fields = frame.split(b"\0")
        if fields[0] == b"stat":
            name, *numbers, target = fields[1:]
            size, mode, mtime = map(int, numbers)
            on_stat(PathStat(_text(name), size, mode, mtime, _text(target)))
        elif fields[0] == b"changes":
            pairs = zip(fields[1::2], fields[2::2], strict=True)
            (changes if changes is not None else []).extend(
                FileChange("/" + _text(p), int(k)) for k, p in pairs
            )
        else:
            last = fields
    return last


def _check(fields: list[bytes], what: str) -> None:
    kind, reason = fields[0], fields[-1].decode("utf-8", "replace")
    if kind == b"ok":
        return
    if kind == b"ended":
        raise ContainerEnded(f"{what}: the container has stopped")
    if kind == b"refused":
        raise InvalidArgument(reason)
    if kind == b"readonly":
        raise ReadOnly(fields[1] == b"rootfs")
    if kind == b"not-directory":
        raise InvalidArgument("extraction point is not a directory")
    if kind == b"bad":
        raise InvalidArgument(f"{what}: {reason}")
    number = int(fields[1])
    if number in _NOT_THERE:
        raise NotFound(f"{what}: {reason}")
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise Unavailable(f"{what}: {os.strerror(number).lower()}")
    if number == errno.EROFS:
        raise ReadOnly(rootfs=False)
    if number in _WRONG:
        raise InvalidArgument(f"{what}: {reason}")
    raise Internal(f"{what}: {reason}")


def _encoded(view: View) -> str:
    if isinstance(view, Inside):
        return msgspec.json.encode(view).decode()
    if isinstance(view, Mounted):
        root = [view.device, view.inode]
        view = Layer(Mount("bind", view.directory, ("bind",)))
    else:
        root = []
    points = [[p.destination, _fields(p.mount), p.subpath, p.writable, p.recursive] for p in view.points]
    body = {
        "mount": _fields(view.mount),
        "points": points,
        "writable": view.writable,
        "readonly": view.readonly,
        "root": root,
    }
    return msgspec.json.encode(body).decode()


def _fields(mount: Mount) -> list[object]:
    return [mount.type, mount.source, list(mount.options)]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def split_path(path: str) -> tuple[str, str]:
    """A client's path as (absolute and clean, what followed it: ``""``, ``"/"`` or ``"/."``).

    Cleaning is Docker's and only gives the path its meaning; where it leads is the kernel's to say.

    :raises InvalidArgument: empty, or with a NUL byte.
    """
    if not path or "\0" in path:
        raise InvalidArgument("bad parameter: path must be a path in the container")
    clean = "/" + posixpath.normpath("/" + path).lstrip("/")
    if clean == "/":
        return clean, ""
    if path.endswith("/."):
        return clean, "/."
    return clean, "/" if path.endswith("/") else ""


def changes(snapshotter: Snapshotter, key: str, *, what: str) -> list[FileChange]:
    """What a container's snapshot changes in its image, by path.

    :raises NotFound: no such snapshot.
    """
    mount = snapshotter.mounts(key)[0]
    if mount.type == "overlay":
        found: list[FileChange] = []
        Job().run(Layer(mount), ("changes",), what=what, changes=found)
        return found
    kinds = {diff.CHANGED: 0, diff.ADDED: 1, diff.DELETED: 2}
    _, parent = snapshotter.directories(key)
    alone = snapshotter.rebase and parent is None
    out = [
        FileChange("/" + _text(change.path), 1 if alone else kinds[change.kind])
        for change in diff.changes(snapshotter, key)
        if change.path not in ENGINE_MADE or change.kind != diff.ADDED
    ]
    return sorted(out, key=lambda change: change.path)
