"""Copy a directory's content with all metadata, using directory descriptors only.

Neither side is trusted: the source may be an image's hostile tree that changes while it is read, and a
container may control the destination. So a path of more than one component is resolved only by ``openat2``,
beneath a descriptor and without symbolic links, and the type of everything opened is checked again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from wherry.errors import InvalidArgument
from wherry.linux import syscalls

DEPTH_MAX = 256
"""The limit for nested directories; each level uses two descriptors."""

_FICLONE = 0x40049409
_CHUNK = 16 << 20
_NO_CLONE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_TRIES = 8
_MOVED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EAGAIN, errno.ESTALE)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


@dataclass
class _Job:
    """``links``: from a source inode with several names to the path of its copy. ``clones``: true until a
    clone has failed as unsupported. ``moving``: files may disappear while they are copied."""

    root: int
    moving: bool = False
    clones: bool = True
    links: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)


def copy_content(source: int, target: int, *, moving: bool = False) -> None:
    """Copy what is in the directory ``source`` into the empty directory ``target``, both descriptors, then
    give ``target`` the owner, mode, extended attributes and times of ``source``.

    Kept: owners, modes, symbolic and hard links, device nodes, names of sockets and pipes, attributes that
    the target's file system takes, times to the nanosecond, holes. Files are cloned where it can.
    On failure ``target`` is empty again.

    :param moving: others may change the source meanwhile: files that disappear are left out.
    :raises OSError: ENOSPC, EDQUOT …
    :raises InvalidArgument: nested deeper than :data:`DEPTH_MAX`.
    """
    try:
        _copy_directory(_Job(target, moving), source, target, ())
    except BaseException:
        with suppress(OSError, RecursionError):
            empty(target)
        raise


def empty(directory: int) -> None:
    """Remove everything in a directory given by its descriptor; symbolic links are not followed."""
    with os.scandir(directory) as entries:
        names = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in names:
        if is_directory:
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def is_empty(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _copy_directory(job: _Job, source: int, target: int, path: tuple[str, ...]) -> None:
    if len(path) > DEPTH_MAX:
        raise InvalidArgument(f"cannot copy a directory: it is nested deeper than {DEPTH_MAX}")
    with os.scandir(source) as entries:
        names = [e.name for e in entries]
    for name in names:
        _copy_as_it_is(job, source, target, (*path, name))
    _give(source, target, os.fstat(source))


def _copy_as_it_is(job: _Job, source: int, target: int, path: tuple[str, ...]) -> None:
    """Copy what has this name now; if it is replaced meanwhile, the replacement is copied."""
    name = path[-1]
    for tries_left in range(_TRIES - 1, -1, -1):
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return
        try:
            _copy_named(job, status, source, target, path)
            return
        except OSError as e:
            if not (tries_left and job.moving and e.errno in _MOVED and _has_moved(source, name, status)):
                raise
            job.links.pop((status.st_dev, status.st_ino), None)
            _remove(target, name)


def _copy_named(job: _Job, status: os.stat_result, source: int, target: int, path: tuple[str, ...]) -> None:
    name = path[-1]
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        with _opened(name, _DIRECTORY, source) as inner, _opened(name, _DIRECTORY, target) as made:
            _copy_directory(job, inner, made, path)
    elif not _linked(job, status, target, path):
        _copy_entry(job, status, source, target, name)


def _has_moved(directory: int, name: str, before: os.stat_result) -> bool:
    """Whether ``name`` is another file now, or does not exist."""
    try:
        now = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return not os.path.samestat(now, before)


def _remove(directory: int, name: str) -> None:
    """Remove everything that was made of it."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


@contextmanager
def _opened(name: str, flags: int, directory: int, mode: int = 0) -> Iterator[int]:
    fd = os.open(name, flags, mode, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _linked(job: _Job, status: os.stat_result, target: int, path: tuple[str, ...]) -> bool:
    """Make a hard link to the copy of the same inode, if there is one yet."""
    if status.st_nlink < 2:
        return False
    first = job.links.setdefault((status.st_dev, status.st_ino), path)
    if first == path:
        return False
    parent = syscalls.openat2(
        job.root, "/".join(first[:-1]) or ".", os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH
    )
    try:
        os.link(first[-1], path[-1], src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
    finally:
        os.close(parent)
    return True


def _copy_entry(job: _Job, status: os.stat_result, source: int, target: int, name: str) -> None:
    if stat.S_ISREG(status.st_mode):
        _copy_file(job, source, target, name)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        _give_by_name(status, source, target, name)
    else:
        os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
        _give_by_name(status, source, target, name)


def _copy_file(job: _Job, source: int, target: int, name: str) -> None:
    # non-blocking: a former regular file may be a pipe now
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _opened(name, reading, source) as old:
        status = os.fstat(old)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EAGAIN, "it changed while it was copied", name)
        with _opened(name, writing, target, 0o600) as new:
            job.clones = copy_bytes(old, new, status.st_size, clone=job.clones)
            _give(old, new, status)


def copy_bytes(old: int, new: int, size: int, *, clone: bool = True) -> bool:
    """The bytes of one open file into another, cloned where the file system can, holes kept.

    :param clone: False if cloning is known to fail. :returns: whether cloning is worth a try the next time.
    """
    if size == 0:
        return clone
    if clone:
        try:
            fcntl.ioctl(new, _FICLONE, old)
            return True
        except OSError as e:
            if e.errno not in _NO_CLONE:
                raise
            # One file may be of a kind that cannot be cloned; another file system cannot clone any.
            clone = e.errno == errno.EINVAL
    os.ftruncate(new, size)
    for start, end in data_ranges(old, size):
        _copy_range(old, new, start, end)
    return clone


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges between the holes (lseek(2), SEEK_DATA)."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return
            if e.errno == errno.EINVAL:
                yield offset, size
                return
            raise
        yield start, min(end, size)
        offset = end


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    in_kernel = True
    while start < end:
        if in_kernel:
            try:
                done = os.copy_file_range(old, new, min(end - start, _CHUNK), start, start)
            except OSError as e:
                if e.errno not in _NO_CLONE:
                    raise
                in_kernel = False
                continue
        else:
            done = os.pwrite(new, os.pread(old, min(end - start, 1 << 20), start), start)
        if done == 0:
            return  # the file became shorter meanwhile
        start += done


def _give(source: int, target: int, status: os.stat_result) -> None:
    """Owner first, because changing it clears set-id bits and capabilities; times last."""
    os.fchown(target, status.st_uid, status.st_gid)
    _copy_xattrs(source, target, follow=True)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _give_by_name(status: os.stat_result, source: int, target: int, name: str) -> None:
    """The same for files that cannot be opened: symbolic links, device nodes, pipes, sockets."""
    with _opened(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, target) as made:
        if stat.S_IFMT(os.fstat(made).st_mode) != stat.S_IFMT(status.st_mode):
            raise OSError(errno.EAGAIN, "it changed while it was copied", name)
        itself = f"/proc/self/fd/{made}"
        os.chown(itself, status.st_uid, status.st_gid)
        _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}", follow=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(itself, stat.S_IMODE(status.st_mode))
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_xattrs(source: int | str, target: int | str, *, follow: bool) -> None:
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as e:
        if e.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        try:
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as e:
            # another kind of file system need not know every kind of attribute
            if e.errno not in (errno.ENOTSUP, errno.ENODATA):
                raise
