"""Read and write a container's files by confined children, for cp and export.

Each call runs one child (:mod:`wherry.storage.confined.child.containerfiles`) to its end on the calling
thread. The thread must not end earlier: the child would die with it. :class:`Job` ends it from another
thread, when the client is gone.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.linux.containerroot import Inside, LayerMounts
from wherry.linux.pychild import DEVNULL
from wherry.model.mount import ENGINE_MADE, Mount
from wherry.storage import diff
from wherry.storage.confined import children
from wherry.storage.confined.children import Ending
from wherry.storage.snapshots import Snapshotter

_MODULE = "wherry.storage.confined.child.containerfiles"
_WRONG = frozenset(
    {
        *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL),
        *(errno.EXDEV, errno.ENXIO, errno.ENODEV, errno.ESRCH, errno.EOPNOTSUPP),
    }
)
"""Errnos that concern the path (also in procfs, or a device node), not this host."""


class ReadOnly(InvalidArgument):
    """The destination is not writable; ``rootfs``: it is the container's root, not a mount."""

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
class LayerChange:
    """``kind``: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class ContainerEnded(Conflict):
    """The container stopped before its files could be reached; nothing was read or written."""


@dataclass(frozen=True)
class MountedRoot:
    """A running container's layer, mounted by the daemon; ``device`` and ``inode`` identify its root."""

    directory: str
    device: int
    inode: int


View = LayerMounts | Inside | MountedRoot
"""How a child gets to the files: an unmounted layer, a running container's process, or its mounted root."""


class Job(Ending):
    """A running child."""

    def run(
        self,
        view: View,
        role: Sequence[str],
        *,
        what: str,
        stdin: int = DEVNULL,
        stdout: int = DEVNULL,
        on_stat: Callable[[PathStat], None] = lambda _stat: None,
        changes: list[LayerChange] | None = None,
    ) -> None:
        """Run one child to its end.

        :param changes: called with the findings of the role ``changes``.
        :raises NotFound: the path does not exist. :raises ContainerEnded, ReadOnly: see there.
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
                changes.extend(LayerChange("/" + _text(path), int(kind)) for kind, path in pairs)

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
    if isinstance(view, MountedRoot):
        root = [view.device, view.inode]
        view = LayerMounts(Mount("bind", view.directory, ("bind",)))
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

    It is cleaned by Docker's rules, as text only; the kernel resolves it later.

    :raises InvalidArgument: empty, or with a NUL byte.
    """
    if not path or "\0" in path:
        raise InvalidArgument("bad parameter: path must be a path in the container")
    clean = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.endswith("/."):
        return clean, "/."
    if clean == "/":
        return clean, ""
    return clean, "/" if path.endswith("/") else ""


def changes(snapshotter: Snapshotter, key: str, job: Job, *, what: str) -> list[LayerChange]:
    """The changes of a container's snapshot compared with its image, by path. ``job`` can end the child, if
    there is one.

    :raises NotFound: no such snapshot.
    """
    mount = snapshotter.mounts(key)[0]
    if mount.type == "overlay":
        found: list[LayerChange] = []
        job.run(LayerMounts(mount), ("changes",), what=what, changes=found)
        return found
    kinds = {diff.CHANGED: 0, diff.ADDED: 1, diff.DELETED: 2}
    _, parent = snapshotter.directories(key)
    alone = snapshotter.rebase and parent is None
    out = [
        LayerChange("/" + _text(change.path), 1 if alone else kinds[change.kind])
        for change in diff.changes(snapshotter, key)
        if change.path not in ENGINE_MADE or change.kind != diff.ADDED
    ]
    return sorted(out, key=lambda change: change.path)
