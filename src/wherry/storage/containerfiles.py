"""A container's files, read and written by confined children: what cp and export need of the storage.

Each call runs one child (:mod:`wherry.storage.files_child`) to its end on the calling thread, which must live
as long: the child dies with it. :class:`Job` ends it from elsewhere, when a client has gone.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.linux.containerroot import Inside, Layer
from wherry.linux.pychild import DEVNULL
from wherry.model.mount import Mount
from wherry.storage import children, diff
from wherry.storage.children import Ending
from wherry.storage.files_changes import ENGINE_MADE
from wherry.storage.snapshots import Snapshotter

_MODULE = "wherry.storage.files_child"
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


class Job(Ending):
    """A child under way."""

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

        def stat(fields: list[bytes]) -> None:
            named, *numbers, target = fields
            size, mode, mtime = map(int, numbers)
            on_stat(PathStat(_text(named), size, mode, mtime, _text(target)))

        def change(fields: list[bytes]) -> None:
            if changes is not None:
                pairs = zip(fields[::2], fields[1::2], strict=True)
                changes.extend(FileChange("/" + _text(path), int(kind)) for kind, path in pairs)

        last = children.run(
            _MODULE,
            arguments,
            what=what,
            ending=self,
            takers={b"stat": stat, b"changes": change},
            stdin=stdin,
            stdout=stdout,
            fds=fds,
        )
        _check(last, what)


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
    if kind == b"os" and int(fields[1]) == errno.ENOENT:
        raise NotFound(f"{what}: {reason}")
    if kind == b"os" and int(fields[1]) == errno.EROFS:
        raise ReadOnly(rootfs=False)
    children.fail(fields, what, wrong=_WRONG)


def _encoded(view: View) -> str:
    if isinstance(view, Inside):
        return msgspec.json.encode(view).decode()
    if isinstance(view, Mounted):
        root = [view.device, view.inode]
        view = Layer(Mount("bind", view.directory, ("bind",)))
    else:
        root = []
    points = [[p.destination, p.mount.fields, p.subpath, p.writable, p.recursive] for p in view.points]
    body = {
        "mount": view.mount.fields,
        "points": points,
        "writable": view.writable,
        "readonly": view.readonly,
        "root": root,
    }
    return msgspec.json.encode(body).decode()


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
