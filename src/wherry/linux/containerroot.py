"""Make a container's files the root of a child, so that it sees them and nothing else.

There are two ways. A running container is entered through the pidfd of its first process: the child joins its
mount namespace. Volumes, binds and tmpfs are where the container has them, and the kernel resolves all names
within that namespace, whatever the container renames, links or mounts meanwhile. A stopped container is put
together in the child's own mount namespace, which nobody else sees and which ends with the child, even if it
is killed. The kernel resolves a mount's target beneath the root (openat2(2)), and the mount is placed there
by descriptor (move_mount(2)).

A view for reading never changes the container: its layer lies below a scratch file system in memory, which
gets the mount points that must be made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.linux import confine
from wherry.linux import syscalls as sys
from wherry.linux.mounts import mount
from wherry.linux.overlay import mount_overlay
from wherry.model.mount import Mount

IN_ROOT = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS
_INERT = sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV | sys.MOUNT_ATTR_NOEXEC
_SCRATCH = "/proc"
"""Where the scratch file system is mounted, only in the child's namespace:
a directory that every host has."""
_SCRATCH_OPTIONS = "size=4m,mode=0700"


@dataclass(frozen=True)
class Point:
    """One mount of a view. ``subpath`` is resolved beneath the source."""

    destination: str
    mount: Mount
    subpath: str = ""
    writable: bool = False
    recursive: bool = True


@dataclass(frozen=True)
class LayerMounts:
    """A view's root: the mount of a writable snapshot (overlay or bind), and the mounts in it.

    :ivar writable: the child will change it; otherwise the snapshot is not changed.
    :ivar readonly: the container's root is read-only, but mounts in it may be writable.
    """

    mount: Mount
    points: Sequence[Point] = ()
    writable: bool = False
    readonly: bool = False


class Root:
    """The root of the calling process, held by a descriptor. Create it after the process has entered."""

    def __init__(self, descriptors: int) -> None:
        """:param descriptors: ``/proc/self/fd``, opened while it was visible (:func:`own_descriptors`)."""
        self.fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors = descriptors

    def find(self, path: str, flags: int = 0) -> int:
        """An O_PATH descriptor of ``path``, which cannot leave the root. :raises OSError: as openat2(2)."""
        return find(self.fd, path, os.O_PATH | flags)

    def reopen(self, fd: int, flags: int) -> int:
        """Open the inode that ``fd`` (O_PATH) refers to, wherever its name leads now."""
        return os.open(str(fd), flags | os.O_CLOEXEC, dir_fd=self._descriptors)

    def name_of(self, fd: int) -> str:
        """The path of ``fd`` in the root, for display."""
        return os.readlink(str(fd), dir_fd=self._descriptors)

    def chown(self, fd: int, uid: int, gid: int) -> None:
        """chown(2) of the file that an O_PATH descriptor refers to, also of a symbolic link."""
        os.chown(str(fd), uid, gid, dir_fd=self._descriptors)

    def chmod(self, fd: int, mode: int) -> None:
        """chmod(2) of the file that an O_PATH descriptor refers to; never of a symbolic link."""
        os.chmod(str(fd), mode, dir_fd=self._descriptors)


def own_descriptors() -> int:
    """A descriptor of ``/proc/self/fd``, for :class:`Root`."""
    return apart("/proc/self/fd")


def apart(directory: str) -> int:
    """An O_PATH descriptor of a directory that is a mount of its own, so no ``..`` leads out of it.

    A descriptor from before the new root was entered would be a way back to all files of the host below the
    same mount, for example those of ``/proc/sys``.

    :raises OSError: as open_tree(2).
    """
    return sys.open_tree(sys.AT_FDCWD, directory, sys.OPEN_TREE_CLONE | os.O_CLOEXEC)


def find(root: int, path: str, flags: int, resolve: int = IN_ROOT) -> int:
    """openat2(2), where the empty path is the root itself. :raises OSError: as there."""
    return sys.openat2(root, path or ".", flags, resolve=resolve)


class RootGone(Exception):
    """The process is gone, or its root is not the container's."""


@dataclass(frozen=True)
class Inside:
    """A running container's process, and the directory that its root must be (stat(2) of the mounted layer).

    The directory verifies the process: a process with another root, such as any process of the host, is never
    mistaken for the container's, whatever the pidfd refers to.
    """

    pidfd: int
    device: int
    inode: int


def enter_process(inside: Inside) -> None:
    """Join the mount namespace of a container's process; the root is then the container's.

    The caller must have one thread only.

    :raises Ended: see there; the caller must end then. :raises OSError: as setns(2).
    """
    sys.unshare(sys.CLONE_NEWIPC)
    try:
        sys.setns(inside.pidfd, sys.CLONE_NEWNS)
    except ProcessLookupError as e:
        raise RootGone from e
    os.chdir("/")
    confirm_root(inside.device, inside.inode)


def confirm_root(device: int, inode: int) -> None:
    """:raises Ended: the root is another directory."""
    root = os.stat("/")
    if (root.st_dev, root.st_ino) != (device, inode):
        raise RootGone


def enter_layer(layer: LayerMounts) -> None:
    """Put the view together in a new mount namespace and make it the root.

    :raises OSError: as mount(2) and its kin.
    """
    confine.new_namespaces()
    place = _mount_root(layer)
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, point in enumerate(layer.points):
            _attach(root, point, number, writable=layer.writable)
        attributes = _INERT
        if layer.readonly or not layer.writable:
            attributes |= sys.MOUNT_ATTR_RDONLY
        sys.mount_setattr(root, "", sys.AT_EMPTY_PATH, set_=attributes)
    finally:
        os.close(root)
    confine.enter_mounted_root(place)


def enter_image(upper: str, options: Sequence[str]) -> None:
    """In its own mount namespace: make the lower layers of a writable overlay the root, read-only.

    :param options: the overlay's. :raises OSError: as mount(2) and its kin.
    """
    sys.mount("none", _SCRATCH, "tmpfs", 0, _SCRATCH_OPTIONS)
    place = _mount_over_scratch(upper, options, with_upper=False)
    sys.mount_setattr(sys.AT_FDCWD, place, 0, set_=_INERT | sys.MOUNT_ATTR_RDONLY)
    confine.enter_mounted_root(place)


def _mount_root(layer: LayerMounts) -> str:
    sys.mount("none", _SCRATCH, "tmpfs", 0, _SCRATCH_OPTIONS)
    if layer.mount.type == "bind":
        sys.mount(layer.mount.source, layer.mount.source, "none", sys.MS_BIND)
        return layer.mount.source
    options = list(layer.mount.options)
    upper = next(o.removeprefix("upperdir=") for o in options if o.startswith("upperdir="))
    if layer.writable:
        mount_overlay("overlay", upper, 0, options)
        return upper
    return _mount_over_scratch(upper, options)


def _mount_over_scratch(upper: str, options: Sequence[str], *, with_upper: bool = True) -> str:
    """Mount an overlay's layers below an upper one in memory; returns where.

    :param with_upper: the overlay's own upper is the highest of the layers; otherwise it is left out.
    """
    lower = [o.removeprefix("lowerdir=") for o in options if o.startswith("lowerdir=")]
    if with_upper:
        lower.insert(0, upper)
    rest = [o for o in options if not o.startswith(("lowerdir=", "upperdir=", "workdir="))]
    names = {name: f"{_SCRATCH}/{name}" for name in ("upper", "work", "root")}
    for place in names.values():
        os.mkdir(place, 0o755)
    status = os.stat(upper)
    os.chown(names["upper"], status.st_uid, status.st_gid)
    os.chmod(names["upper"], stat.S_IMODE(status.st_mode))
    os.utime(names["upper"], ns=(status.st_atime_ns, status.st_mtime_ns))
    layers = [f"lowerdir={':'.join(lower)}", f"upperdir={names['upper']}", f"workdir={names['work']}"]
    mount_overlay("overlay", names["root"], 0, [*rest, *layers])
    return names["root"]


def _attach(root: int, point: Point, number: int, *, writable: bool) -> None:
    try:
        tree = _tree(point, number)
    except FileNotFoundError:
        if writable:
            raise
        return  # a bind's source is gone: a reader sees the files below it
    try:
        attributes = _INERT | (0 if writable and point.writable else sys.MOUNT_ATTR_RDONLY)
        sys.mount_setattr(tree, "", sys.AT_EMPTY_PATH | sys.AT_RECURSIVE, set_=attributes)
        target = _target(root, point.destination, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        try:
            flags = sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH
            sys.move_mount(tree, "", target, "", flags)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _tree(point: Point, number: int) -> int:
    """A detached copy of what is to be mounted."""
    source = point.mount.source
    if point.mount.type != "bind":
        source = f"{_SCRATCH}/{number}"
        os.mkdir(source, 0o700)
        mount(point.mount, source)
    flags = sys.OPEN_TREE_CLONE | os.O_CLOEXEC | (sys.AT_RECURSIVE if point.recursive else 0)
    if not point.subpath:
        return sys.open_tree(sys.AT_FDCWD, source, flags)
    base = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_MAGICLINKS
        inner = find(base, point.subpath, os.O_PATH, resolve)
        try:
            return sys.open_tree(inner, "", flags | sys.AT_EMPTY_PATH)
        finally:
            os.close(inner)
    finally:
        os.close(base)


def _target(root: int, destination: str, *, directory: bool) -> int:
    """The target of a mount. Missing parts are made, each in the directory that was opened before."""
    try:
        return find(root, destination, os.O_PATH)
    except FileNotFoundError:
        pass
    parts = [part for part in destination.split("/") if part]
    for depth, name in enumerate(parts):
        parent = find(root, "/".join(parts[:depth]), os.O_PATH | os.O_DIRECTORY)
        try:
            if directory or depth < len(parts) - 1:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, new, 0o644, dir_fd=parent))
        except OSError as e:
            if e.errno != errno.EEXIST:
                raise
        finally:
            os.close(parent)
    return find(root, destination, os.O_PATH)
