"""Mount points for the OCI runtime: each source is located on the host and made ready to be bound.

A part of a volume or image is resolved by the kernel beneath its root (openat2(2)), and that descriptor is
bound below ``<task>/mounts``. So nothing that a container renames meanwhile can lead elsewhere or be swapped
between the check and the mount.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack
from pathlib import Path

from wherry.errors import Internal, InvalidArgument, Unavailable
from wherry.linux import idmap, mounts, syscalls
from wherry.linux.idmap import IdOwner
from wherry.linux.users import User
from wherry.model.container import MountPoint
from wherry.runtime.spec import OciMount
from wherry.storage.snapshots import Snapshotter
from wherry.volumes import fill
from wherry.volumes.mounted import user_of
from wherry.volumes.store import VolumeStore

_DIRECTORY = "mounts"
_TMPFS_DEFAULTS = ("nosuid", "nodev", "noexec")


class MountSources:
    """Prepares the sources of one task; ``undo`` takes back what is bound below ``<task>/mounts``."""

    def __init__(self, task: Path, volumes: VolumeStore, snapshotter: Snapshotter, undo: ExitStack) -> None:
        """:param task: the task's directory, with the container's root mounted on ``rootfs`` in it. Its name
        is the container's id."""
        self._task = task
        self._volumes = volumes
        self._snapshotter = snapshotter
        self._undo = undo

    def prepare(self, point: MountPoint, user: User | None = None) -> OciMount:
        """:param user: the container's user, for mounts whose owner is to match it.

        :raises InvalidArgument: a source does not exist.
        :raises Unavailable: its file system cannot map owners.
        """
        if point.type == "tmpfs":
            words = [w for w in point.options if w != "rw"]
            options = (*_TMPFS_DEFAULTS, *(["rw"] if point.rw else []), *words)
            return OciMount(point.destination, "tmpfs", "tmpfs", options)
        if point.type == "volume":
            return _bind(point, self._matched(self._volume(point), point, user))
        if point.type == "image":
            return _bind(point, self._image(point))
        ensure_bind_source(point)
        _check_propagation(point)
        return _bind(point, self._matched(point.source, point, user))

    def _volume(self, point: MountPoint) -> str:
        user = user_of(self._task.name, point.destination)
        source = self._volumes.mounts.take(point.volume, user)
        self._undo.callback(self._volumes.mounts.give_back, point.volume, user)
        if point.copy_up and not point.subpath:
            self._volumes.copy_up(self._task / "rootfs", point.destination, point.driver, source)
        if not point.subpath:
            return str(source)
        staged = self._stage(source, point)
        if point.copy_up and os.path.isdir(staged):
            fill.copy_up(self._task / "rootfs", point.destination, Path(staged), marked=False)
        return staged

    def _matched(self, source: str, point: MountPoint, user: User | None) -> str:
        """If asked for, map ids so that the source's owner
        and the container's user take each other's place."""
        if not point.owner:
            return source
        if user is None:
            raise InvalidArgument("owner=match can only be asked for when a container is made")
        found = os.open(source, os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(found)
            tree = _clone(found, recursive=point.recursive)
            try:
                disk, shown = IdOwner(status.st_uid, status.st_gid), IdOwner(user.uid, user.gid)
                idmap.map_tree(tree, disk, shown, recursive=point.recursive)
                place = self._place(is_directory=stat.S_ISDIR(status.st_mode))
                self._undo.callback(mounts.unmount, place)
                syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(place), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                os.close(tree)
        except OSError as e:
            kind = mounts.mount_of(Path(source)).type
            raise Unavailable(
                f"cannot match the owner of {point.name or point.source}: the file system ({kind}), or one "
                f"mounted below it, does not support idmapped mounts: {(e.strerror or str(e)).lower()}"
            ) from e
        finally:
            os.close(found)
        return str(place)

    def _image(self, point: MountPoint) -> str:
        place = self._place(is_directory=True)
        self._undo.callback(mounts.unmount, place)
        for layer in self._snapshotter.mounts(point.name):
            mounts.mount(layer, place)
        return self._stage(place, point) if point.subpath else str(place)

    def _place(self, *, is_directory: bool) -> Path:
        directory = self._task / _DIRECTORY
        directory.mkdir(exist_ok=True, mode=0o700)
        place = directory / secrets.token_hex(6)
        if is_directory:
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        return place

    def _stage(self, base: Path, point: MountPoint) -> str:
        """``point.subpath`` below ``base``, bound to a place where nobody else can move it."""
        found = _beneath(base, point)
        try:
            place = self._place(is_directory=stat.S_ISDIR(os.fstat(found).st_mode))
            tree = _clone(found, recursive=True)
            try:
                syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(place), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                os.close(tree)
            self._undo.callback(mounts.unmount, place)
        except OSError as e:
            raise Internal(f"cannot mount {point.subpath} of {point.type} {point.name}: {e.strerror}") from e
        finally:
            os.close(found)
        return str(place)


def _clone(found: int, *, recursive: bool) -> int:
    """A detached copy of the mount at a descriptor."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | os.O_CLOEXEC
    return syscalls.open_tree(found, "", flags | (syscalls.AT_RECURSIVE if recursive else 0))


def _beneath(base: Path, point: MountPoint) -> int:
    """:raises InvalidArgument: it does not exist, or it would lead out of the volume or image."""
    base_fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
        return syscalls.openat2(base_fd, point.subpath, os.O_PATH, resolve=resolve)
    except OSError as e:
        # With "No such file" clients would report that the command is missing.
        reasons = {errno.ENOENT: "it does not exist", errno.EXDEV: "it leaves it"}
        what = reasons.get(e.errno or 0, (e.strerror or str(e)).lower())
        raise InvalidArgument(
            f"cannot access path {point.subpath} of {point.type} {point.name or point.source}: {what}"
        ) from e
    finally:
        os.close(base_fd)


def unstage(task: Path) -> None:
    """Unmount all staged sources of a task, the last one first."""
    directory = task / _DIRECTORY
    if directory.is_dir():
        for target in mounts.mounts_below(directory):
            mounts.unmount(target)


def _check_propagation(point: MountPoint) -> None:
    """:raises InvalidArgument: mounts would not propagate as asked: the host's mount does not take part."""
    if point.propagation.removeprefix("r") not in ("shared", "slave"):
        return
    entry = mounts.mount_of(Path(point.source))
    where = f"path {point.source} is mounted on {entry.target} but it is not a"
    if point.propagation.endswith("shared"):
        if not entry.shares:
            raise InvalidArgument(f"{where} shared mount")
    elif not (entry.shares or entry.follows):
        raise InvalidArgument(f"{where} shared or slave mount")


def _bind(point: MountPoint, source: str) -> OciMount:
    options = ["rbind" if point.recursive else "bind", point.propagation or "rprivate"]
    if not point.rw:
        # A file has no mounts below it, and crun accepts rro for directories only.
        options.append("rro" if "rro" in point.options and os.path.isdir(source) else "ro")
    return OciMount(point.destination, "bind", source, tuple(options))


def ensure_bind_source(point: MountPoint) -> None:
    """Make the directory of a ``-v`` bind that is not there, as its first use does.

    :raises InvalidArgument: it is not there, and the mount does not ask for it.
    """
    if os.path.lexists(point.source):
        return
    if "create-source" not in point.options:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
        )
    try:
        Path(point.source).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Internal(
            f"error while creating mount source path '{point.source}': mkdir {point.source}: {e.strerror}"
        ) from e
