"""Mounts and device nodes put into, and taken out of, a running container's mount namespace.

A mount is made detached in the host's namespace (open_tree(2), fsmount(2)) and then moved to a place inside
(move_mount(2)). Moving needs the container's namespace: a thread enters it through the process's pidfd, and
ends afterwards. There it makes only system calls, because anything it could load would be the container's.
The kernel resolves every place beneath the container's root (openat2(2)).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from wherry.linux import mounts, syscalls
from wherry.linux.netns import on_thread

T = TypeVar("T")

_PROC_MAGIC = 0x9FA0
_ATTRIBUTES = {
    syscalls.MS_RDONLY: 1,
    syscalls.MS_NOSUID: 2,
    syscalls.MS_NODEV: 4,
    syscalls.MS_NOEXEC: 8,
    syscalls.MS_NOATIME: 0x10,
}
"""``MOUNT_ATTR_*`` of mount_setattr(2) by their flags of mount(2)."""


def bind(source: str, options: Sequence[str]) -> int:
    """A detached bind mount of ``source``; the caller closes the descriptor, and with it an unused mount.

    :param options: as of mount(8): ``rbind``, ``ro``, ``rro`` (read-only all the way down), a propagation.
    :raises OSError: as open_tree(2) and mount_setattr(2).
    """
    words = [o for o in options if o != "rro"]
    flags, propagation, _data = mounts.parse_options(words)
    recursive = syscalls.AT_RECURSIVE if flags & syscalls.MS_REC else 0
    clone = syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC
    fd = syscalls.open_tree(syscalls.AT_FDCWD, source, clone | recursive)
    try:
        set_ = _attributes(flags) | (1 if "rro" in options else 0)
        if set_:
            down = recursive if "rro" in options else 0
            syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH | down, set_=set_)
        kind = propagation & ~syscalls.MS_REC
        if kind:
            down = syscalls.AT_RECURSIVE if propagation & syscalls.MS_REC else 0
            syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH | down, propagation=kind)
    except BaseException:
        os.close(fd)
        raise
    return fd


def tmpfs(options: Sequence[str]) -> int:
    """A detached, empty tmpfs with options of mount(8) and tmpfs(5). :raises OSError: as fsconfig(2)."""
    flags, _propagation, data = mounts.parse_options(options)
    fs = syscalls.fsopen("tmpfs")
    try:
        for word in filter(None, data.split(",")):
            key, equals, value = word.partition("=")
            syscalls.fsconfig_set(fs, key, value if equals else None)
        syscalls.fsconfig_create(fs)
        return syscalls.fsmount(fs, _attributes(flags))
    finally:
        os.close(fs)


def _attributes(flags: int) -> int:
    return sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)


def attach(process_fd: int, mount_fd: int, target: str) -> None:
    """Move a detached mount to ``target`` inside; a missing mount point is made, as at a start.

    :param process_fd: a pidfd of the container's first process.
    :raises OSError: the place cannot be made, lies in procfs (EPERM), or is a file where the mount is a
        directory, or the other way round (ENOTDIR, EISDIR).
    """
    is_directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)

    def work(root: int) -> None:
        place = _place(root, target, is_directory=is_directory)
        try:
            _refuse_procfs(place, target)
            if stat.S_ISDIR(os.fstat(place).st_mode) != is_directory:
                raise OSError(errno.ENOTDIR if is_directory else errno.EISDIR, "wrong kind of target", target)
            flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
            syscalls.move_mount(mount_fd, "", place, "", flags)
        finally:
            os.close(place)

    _inside(process_fd, work)


_DEFAULTS = frozenset(
    {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    | {f"/etc/{name}" for name in ("hosts", "hostname", "resolv.conf")}
)
"""Mount points that every container has: they isolate it, or belong to the engine."""


def detach(process_fd: int, target: str, keep: Collection[tuple[int, int]] = ()) -> None:
    """Unmount the top mount at ``target`` inside, even while it is in use.

    The container may have renamed directories on the way, so that another of its mounts is at ``target`` now:
    that one is left alone.

    :param keep: device and inode of what must stay mounted.
    :raises OSError: nothing is mounted there (EINVAL), the path now leads where it did not ask to (ELOOP,
        EPERM), or the container keeps renaming it (EAGAIN).
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def work(root: int) -> None:
        with _opened(root, target) as place:
            # Where it really is: umount2(2) takes a path, and that path must have no link to follow.
            real = os.readlink(f"thread-self/fd/{place}", dir_fd=proc)
            mount = _mount_of(proc, place)
            status = os.fstat(place)
        moved = real in _DEFAULTS and real != target
        if real == "/" or moved or real.startswith(("/proc/", "/sys/")):
            raise OSError(errno.EPERM, "not a place of the container's own", target)
        if (status.st_dev, status.st_ino) in keep:
            raise OSError(errno.EPERM, "another mount is there by now", target)
        parent, name = os.path.split(real)
        parent_fd = syscalls.openat2(
            root,
            parent,
            os.O_PATH | os.O_DIRECTORY,
            resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS,
        )
        try:
            with _opened(parent_fd, name, os.O_PATH | os.O_NOFOLLOW) as found:
                if _mount_of(proc, found) != mount:
                    raise OSError(errno.EAGAIN, "the place is being renamed", target)
            # From here on the name is a mount point, which its own namespace cannot rename.
            os.fchdir(parent_fd)  # of this thread alone
            syscalls.umount(name, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
        finally:
            os.close(parent_fd)

    try:
        _inside(process_fd, work)
    finally:
        os.close(proc)


def _mount_of(proc: int, fd: int) -> str:
    """The number of the mount ``fd`` lies on (proc_pid_fdinfo(5))."""
    info = os.open(f"thread-self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        text = os.read(info, 4096).decode()
    finally:
        os.close(info)
    return next(line.split()[1] for line in text.splitlines() if line.startswith("mnt_id:"))


def make_node(process_fd: int, path: str, mode: int, device: int, owner: tuple[int, int]) -> None:
    """Make a device node inside; ``mode`` with its type, ``device`` as makedev(3).

    :raises OSError: EEXIST and the like.
    """
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise OSError(errno.EINVAL, "not a device", path)

    def work(root: int) -> None:
        parent, name = os.path.split(path)
        parent_fd = _place(root, parent, is_directory=True)
        try:
            _refuse_procfs(parent_fd, path)
            os.mknod(name, mode, device, dir_fd=parent_fd)
            os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
            # mknod(2) heeds the umask, which is the whole process's and not this thread's to change.
            with _opened(parent_fd, name, os.O_PATH | os.O_NOFOLLOW) as node:
                os.chmod(f"thread-self/fd/{node}", stat.S_IMODE(mode), dir_fd=proc)
        finally:
            os.close(parent_fd)

    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _inside(process_fd, work)
    finally:
        os.close(proc)


def remove_node(process_fd: int, path: str, device: int) -> None:
    """Remove a device node inside; one that is not there, or is another one by now, is left alone."""

    def work(root: int) -> None:
        parent, name = os.path.split(path)
        try:
            with _opened(root, parent) as parent_fd:
                info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                if (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)) and info.st_rdev == device:
                    os.unlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            pass

    _inside(process_fd, work)


def _inside(process_fd: int, work: Callable[[int], T]) -> T:
    """Run ``work`` with the container's root on a thread in its mount namespace."""

    def enter() -> T:
        # A thread that shares its root and working directory with others may not enter.
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(process_fd, syscalls.CLONE_NEWNS)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return work(root)
        finally:
            os.close(root)

    return on_thread(enter)


@contextmanager
def _opened(root: int, path: str, flags: int = os.O_PATH) -> Iterator[int]:
    fd = syscalls.openat2(root, path or "/", flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _refuse_procfs(place: int, target: str) -> None:
    if syscalls.filesystem_type(place) == _PROC_MAGIC:
        raise OSError(errno.EPERM, "the place lies in procfs", target)


def _place(root: int, path: str, *, is_directory: bool) -> int:
    """``path`` beneath ``root``, made with its parents where it is not there."""
    try:
        return syscalls.openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    with ExitStack() as held:
        parent = syscalls.openat2(root, "/", os.O_PATH | os.O_DIRECTORY)
        held.callback(os.close, parent)
        parts = [p for p in path.split("/") if p]
        for depth, name in enumerate(parts, 1):
            last = depth == len(parts)
            where = "/".join(parts[:depth])
            try:
                parent = syscalls.openat2(root, where, os.O_PATH)
            except FileNotFoundError:
                # A dangling link is not followed: EEXIST says so.
                if last and not is_directory:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
                else:
                    os.mkdir(name, 0o755, dir_fd=parent)
                parent = syscalls.openat2(
                    parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=syscalls.RESOLVE_BENEATH
                )
            held.callback(os.close, parent)
        return os.dup(parent)
