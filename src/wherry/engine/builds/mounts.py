"""The mounts of a RUN, prepared for the OCI runtime below ``<task>/mounts``.

A path in a stage, a context or a cache is resolved by the kernel beneath its root (openat2(2)), and bound by
that descriptor. So none of its links leads outside, and nothing can be swapped between the check and the
mount. Secrets are files in memory. What a RUN writes to a bind mount is discarded.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from wherry.errors import Internal, InvalidArgument
from wherry.linux import mounts, syscalls, trees
from wherry.model.mount import Mount
from wherry.runtime.spec import OciMount
from wherry.solver.graph import MountOp, RunOp

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


@dataclass
class MountedSources:
    """``env``: variables that contain secrets."""

    mounts: list[OciMount] = field(default_factory=list)
    env: list[str] = field(default_factory=list)

    @staticmethod
    def is_directory(mount: OciMount) -> bool:
        return mount.type != "bind" or os.path.isdir(mount.source)


Source = Callable[[int, bool, ExitStack], Mount]
"""Mounts a source of the vertex, given its index and whether it is writable; the stack undoes it."""
Cache = Callable[[MountOp, ExitStack], Path]


class MountMaker:
    """For one RUN of one build."""

    def __init__(
        self,
        *,
        source: Source,
        cache: Cache,
        secrets_: Mapping[str, bytes],
        agents: Mapping[str, str],
    ) -> None:
        """:param agents: sockets of SSH agents by id, as paths of this host."""
        self._source, self._cache = source, cache
        self._secrets, self._agents = secrets_, agents

    def make(self, op: RunOp, task: Path, undo: ExitStack) -> MountedSources:
        """:raises InvalidArgument: a source does not exist, or a required secret is missing."""
        made = MountedSources()
        self._task, self._undo = task, undo
        (task / "mounts").mkdir(mode=0o700)
        for mount in op.mounts:
            self._one(mount, made)
        for path, content in op.files:
            place = self._file(content.encode(), 0, 0, 0o755)
            made.mounts.append(OciMount(path, "bind", str(place), ("bind", "ro")))
        made.mounts.sort(key=lambda m: m.destination.count("/"))
        return made

    def _one(self, mount: MountOp, made: MountedSources) -> None:
        if mount.type == "bind":
            tree = self._mounted(self._source(mount.source, not mount.readonly, self._undo))
            place = self._stage(tree, mount.path, mount)
            options = ("rbind", "rprivate", *(("ro",) if mount.readonly else ()))
            made.mounts.append(OciMount(mount.target, "bind", str(place), options))
        elif mount.type == "cache":
            directory = self._cache(mount, self._undo)
            place = self._stage(directory, mount.path if mount.source < 0 else "/", mount)
            options = ("rbind", "rprivate", *(("ro",) if mount.readonly else ()))
            made.mounts.append(OciMount(mount.target, "bind", str(place), options))
        elif mount.type == "tmpfs":
            size = (f"size={mount.size}",) if mount.size else ()
            made.mounts.append(
                OciMount(mount.target, "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", *size))
            )
        elif mount.type == "secret":
            self._secret(mount, made)
        else:
            self._agent(mount, made)

    def _mounted(self, value: Mount) -> Path:
        place = self._place(directory=True)
        self._undo.callback(mounts.unmount, place)
        mounts.mount(value, place)
        return place

    def _place(self, *, directory: bool) -> Path:
        place = self._task / "mounts" / secrets.token_hex(6)
        if directory:
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        return place

    def _stage(self, base: Path, path: str, mount: MountOp) -> Path:
        """``path`` below ``base``, bound to a place where nobody else can move it."""
        base_fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = syscalls.openat2(base_fd, path.strip("/") or ".", os.O_PATH, resolve=_IN_ROOT)
        except OSError as e:
            why = "not found" if e.errno in (errno.ENOENT, errno.ENOTDIR) else (e.strerror or str(e)).lower()
            raise InvalidArgument(f'mount source "{path}" of {mount.target}: {why}') from e
        finally:
            os.close(base_fd)
        try:
            place = self._place(directory=stat.S_ISDIR(os.fstat(found).st_mode))
            flags = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
            tree = syscalls.open_tree(found, "", syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC | flags)
            try:
                self._undo.callback(mounts.unmount, place)
                syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(place), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                os.close(tree)
        except OSError as e:
            raise Internal(f"cannot mount on {mount.target}: {e.strerror}") from e
        finally:
            os.close(found)
        return place

    def _secret(self, mount: MountOp, made: MountedSources) -> None:
        value = self._secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise InvalidArgument(f"secret {mount.id}: not found")
            return
        if mount.env is not None:
            text = value.decode("utf-8", "surrogateescape").rstrip("\n")
            made.env.append(f"{mount.env or mount.id}={text}")
        if mount.target:
            place = self._file(value, mount.uid, mount.gid, 0o400 if mount.mode is None else mount.mode)
            made.mounts.append(OciMount(mount.target, "bind", str(place), ("bind", "ro", "nosuid", "nodev")))

    def _file(self, content: bytes, uid: int, gid: int, mode: int) -> Path:
        """A file in memory; it is never written to a disk."""
        store = self._task / "secrets"
        if not store.exists():
            store.mkdir(mode=0o700)
            self._undo.callback(mounts.unmount, store)
            mounts.mount(Mount("tmpfs", "tmpfs", ("nosuid", "nodev", "mode=700", "size=16m")), store)
        place = store / secrets.token_hex(6)
        place.write_bytes(content)
        os.chown(place, uid, gid)
        place.chmod(mode)
        return place

    def _agent(self, mount: MountOp, made: MountedSources) -> None:
        path = self._agents.get(mount.id)
        if path is None:
            if mount.required:
                raise InvalidArgument(f"unset ssh forward key {mount.id}")
            return
        os.chown(path, mount.uid, mount.gid)
        os.chmod(path, 0o600 if mount.mode is None else mount.mode)
        made.mounts.append(OciMount(mount.target, "bind", path, ("bind",)))
        made.env.append(f"SSH_AUTH_SOCK={mount.target}")


def scratch_overlay(root: Path, lower: str, undo: ExitStack) -> Mount:
    """A writable view of a directory; what is written is discarded.
    :param root: on the disk of the layers."""
    place = root / f"scratch-{secrets.token_hex(6)}"
    undo.callback(trees.remove, place)
    for name in ("upper", "work"):
        (place / name).mkdir(parents=True, mode=0o755)
    options = (
        "index=off",
        "metacopy=off",
        f"lowerdir={lower}",
        f"upperdir={place}/upper",
        f"workdir={place}/work",
    )
    return Mount("overlay", "overlay", options)
