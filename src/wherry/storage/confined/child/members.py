"""Shared code for making files from members: data with holes, owner, mode, attributes."""

from __future__ import annotations

import errno
import os
import stat

from wherry.model.tarformat import BadTar, Entry, TarReader, show
from wherry.storage.layerformat import carries


def write_data(fd: int, entry: Entry, reader: TarReader) -> None:
    """Write a file's bytes into a new file; for a sparse file at their offsets, with holes between."""
    pieces = reader.data()
    if entry.sparse is None:
        for piece in pieces:
            while piece:
                piece = piece[os.write(fd, piece) :]
        return
    rest: bytes | memoryview = b""
    for offset, length in entry.sparse:
        while length:
            if not rest:
                rest = next(pieces)
            written = os.pwrite(fd, rest[:length], offset)
            rest, offset, length = rest[written:], offset + written, length - written
    os.ftruncate(fd, entry.real_size)


def set_xattrs(target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set the attributes that a layer may carry; those of the kernel and of overlayfs are ignored."""
    follow = isinstance(target, int)
    for key, value in xattrs.items():
        if not carries(key):
            continue
        try:
            os.setxattr(target, key, value, follow_symlinks=follow)
        except OSError as e:
            # this file system or kind of file has no such attributes: the file itself matters more
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def give(fd: int, entry: Entry, *, plain: bool = False) -> None:
    """Set owner, mode and extended attributes of an open file or directory.

    :param plain: a new file, made with its mode in a directory that :func:`is_plain`. Each of these calls
        costs as much as a write.
    """
    if not plain or entry.uid or entry.gid:
        os.fchown(fd, entry.uid, entry.gid)
    if not plain or entry.mode & ~0o777:
        os.fchmod(fd, entry.mode)
    if entry.xattrs:
        set_xattrs(fd, entry.xattrs)


def is_plain(directory: int | bytes, mode: int, gid: int) -> bool:
    """Whether a new file in a directory belongs to root, and has the mode it is made with.

    So the directory has no default ACL (acl(5)), and passes on no group but root's, whatever the mount's
    options are.

    :param mode: the directory's. :param gid: its group.
    """
    if gid or mode & stat.S_ISGID:
        return False
    try:
        return not os.listxattr(directory)
    except OSError:
        return False  # what kind of ACL this file system has cannot be said


def device_of(entry: Entry, path: bytes) -> int:
    """The number of a device node. :raises BadTar: an impossible number."""
    try:
        return os.makedev(entry.major, entry.minor)
    except (OverflowError, ValueError, OSError) as e:
        raise BadTar(f"{show(path)} has an impossible device number") from e


def xattrs_of(fd: int) -> dict[bytes, bytes]:
    """The extended attributes of a file that an archive carries."""
    try:
        names = os.listxattr(fd)
        kept = filter(carries, sorted(map(os.fsencode, names)))
        return {name: os.getxattr(fd, name) for name in kept}
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES):
            return {}
        raise
