"""Layers made on the spot, good and hostile, and a way to unpack them."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

from wherry.model import digest as digests
from wherry.model import tarwriter
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.model.tarformat import CHARACTER, DIRECTORY, FILE, LINK, SYMLINK, TarLimits
from wherry.model.tarwriter import TarMember
from wherry.storage.confined.unpack import Unpacked, Unpacker


def file(name: str, data: bytes = b"", mode: int = 0o644, **more: object) -> tuple[TarMember, bytes]:
    return TarMember(name=name.encode(), mode=mode, size=len(data), **more), data  # type: ignore[arg-type]


def directory(name: str, mode: int = 0o755, **more: object) -> tuple[TarMember, bytes]:
    return TarMember(name=name.encode(), type=DIRECTORY, mode=mode, **more), b""  # type: ignore[arg-type]


def symlink(name: str, target: str) -> tuple[TarMember, bytes]:
    return TarMember(name=name.encode(), type=SYMLINK, mode=0o777, linkname=target.encode()), b""


def link(name: str, target: str) -> tuple[TarMember, bytes]:
    return TarMember(name=name.encode(), type=LINK, linkname=target.encode()), b""


def device(name: str, major: int, minor: int) -> tuple[TarMember, bytes]:
    return TarMember(name=name.encode(), type=CHARACTER, mode=0o666, major=major, minor=minor), b""


def layer(*members: tuple[TarMember, bytes]) -> bytes:
    return tarwriter.archive(members)


def unpack(
    data: bytes,
    target: Path,
    *,
    whiteouts: str = "overlay",
    limits: TarLimits | None = None,
    digest: Digest | None = None,
    expected: Digest | None = None,
) -> Unpacked:
    """Unpack ``data`` into ``target``, which is made if need be."""
    blob = target.parent / (target.name + ".blob")
    blob.write_bytes(data)
    target.mkdir(exist_ok=True)
    mount = Mount("bind", str(target))
    return Unpacker(limits).unpack(
        blob, mount, whiteouts=whiteouts, digest=digest or digests.of(data), expected=expected
    )


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything there is to know about a tree, but times that nobody set."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for place, directories, files in os.walk(root):
        directories.sort()  # the order decides which name of a file counts as its first
        for name in sorted([*directories, *files]):
            path = Path(place) / name
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            shown = str(path.relative_to(root))
            content: object = None
            if kind == stat.S_IFREG:
                content = path.read_bytes()
            elif kind == stat.S_IFLNK:
                content = str(path.readlink())
            first = shown if kind == stat.S_IFDIR else inodes.setdefault(status.st_ino, shown)
            found[shown] = (
                kind,
                stat.S_IMODE(status.st_mode),
                (status.st_uid, status.st_gid),
                status.st_mtime_ns,
                content,
                first if first != shown else "",
                status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
                _xattrs(path),
            )
    return found


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((n, os.getxattr(path, n, follow_symlinks=False)) for n in names)


__all__ = ["FILE", "device", "directory", "file", "gz", "layer", "link", "listing", "symlink", "unpack"]
