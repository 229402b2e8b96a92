"""Snapshots on kernel overlayfs: each layer has only its own files, and can be unpacked on its own.

    <root>/snapshots/overlay/<id>/fs      a layer's files, or a container's writable ones
    <root>/snapshots/overlay/<id>/work    only while writable

Mount options, and why (Documentation/filesystems/overlayfs.rst): ``index=off``: many mounts share layers at
the same time. ``metacopy=off``: a difference must contain whole files. ``redirect_dir=off``: a renamed
directory must appear in the difference as a real directory (rename(2) returns EXDEV, and programs copy
instead). ``xino`` is left to the kernel: all layers are on one file system, so inode numbers are stable
without it. ``volatile`` is not used for containers: their files must survive a crash like any others.
``userxattr`` is for mounts without privileges; the ``trusted`` names used here cannot be set from within a
container.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from wherry.errors import Internal
from wherry.linux import trees
from wherry.linux.mounts import mount, unmount
from wherry.linux.overlay import LAYERS_MAX
from wherry.model.mount import Mount
from wherry.state.snapshots import SnapshotRow
from wherry.storage.drivers.directories import DirectorySnapshotter
from wherry.storage.drivers.inherit import inherit
from wherry.storage.snapshots import ACTIVE, SnapshotUsage

_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=off")
_FORBIDDEN = frozenset(":,\\")


class OverlaySnapshotter(DirectorySnapshotter):
    """See :class:`wherry.storage.snapshots.Snapshotter`."""

    name = "overlay"
    rebase = True

    def _fill(self, row: SnapshotRow, directory: Path) -> None:
        files = directory / "fs"
        files.mkdir(mode=0o755, exist_ok=True)
        if row.kind != ACTIVE:
            return
        (directory / "work").mkdir(mode=0o711, exist_ok=True)
        if row.parent is not None:
            status = (self.directory(row.parent) / "fs").stat()  # this directory's mode is what shows
            os.chown(files, status.st_uid, status.st_gid)
            files.chmod(status.st_mode & 0o7777)

    def _mounts(self, row: SnapshotRow) -> list[Mount]:
        layers = [str(self.directory(i) / "fs") for i in self._rows.chain(row.parent)]
        own = self.directory(row.id)
        writable = row.kind == ACTIVE
        if not layers:
            return [Mount("bind", str(own / "fs"), ("rbind", "rw" if writable else "ro"))]
        if not writable and len(layers) == 1:
            return [Mount("bind", layers[0], ("rbind", "ro"))]
        lower = "lowerdir=" + ":".join(layers)
        if not writable:
            return [Mount("overlay", "overlay", ("ro", *_OPTIONS, lower))]
        upper, work = f"upperdir={own / 'fs'}", f"workdir={own / 'work'}"
        return [Mount("overlay", "overlay", (*_OPTIONS, lower, upper, work))]

    def commit(
        self,
        name: str,
        key: str,
        *,
        parent: str | None = None,
        usage: SnapshotUsage | None = None,
        synced: bool = False,
        unnamed: Collection[bytes] = (),
    ) -> None:
        if parent is not None and unnamed:
            self._inherit(key, parent, unnamed)
        super().commit(name, key, parent=parent, usage=usage, synced=synced)
        trees.remove(self.directory(self._rows.get(name).id) / "work")

    def _inherit(self, key: str, parent: str, unnamed: Collection[bytes]) -> None:
        below = [self.directory(i) / "fs" for i in self._rows.chain(self._rows.get(parent).id)]
        try:
            inherit(self.directory(self._rows.get(key).id) / "fs", below, unnamed)
        except OSError as e:
            raise Internal(f"cannot commit snapshot {key}: {e.strerror or e}") from e

    def directories(self, key: str) -> tuple[Path, Path | None]:
        return self.directory(self._rows.get(key).id) / "fs", None


def probe(root: Path, *, again: bool = False) -> str | None:
    """Whether overlayfs works on the file system of ``root``: ``None``, or the reason why not.

    It mounts a small overlay, hides a file, and checks that the whiteout and its attributes have an effect.
    That needs d_type, ``trusted.*`` attributes, device nodes and the right to mount.

    :param again: it has worked there before, so a full disk does not count as a failure.
    """
    if _FORBIDDEN & set(str(root)):
        return f"the path {root} has a character that overlay mount options cannot carry (: , \\)"
    base = root / f".overlay-probe-{secrets.token_hex(6)}"
    with ExitStack() as stack:
        try:
            base.mkdir(parents=True, mode=0o700)
            stack.callback(trees.remove, base)
            for name in ("lower/dir", "upper", "work", "merged"):
                (base / name).mkdir(parents=True)
            (base / "lower/file").write_bytes(b"")
            (base / "lower/dir/inner").write_bytes(b"")
            where = [f"{key}dir={base / key}" for key in ("lower", "upper", "work")]
            mount(Mount("overlay", "overlay", (*_OPTIONS, *where)), base / "merged")
            stack.callback(unmount, base / "merged")
            (base / "merged/file").unlink()
            trees.remove(base / "merged/dir")
            (base / "merged/dir").mkdir()
            if os.listdir(base / "merged") != ["dir"] or os.listdir(base / "merged/dir"):
                return "the file system does not report entry types (d_type) or keep whiteouts"
            os.getxattr(base / "upper/dir", "trusted.overlay.opaque")
        except OSError as e:
            if again and e.errno in (errno.ENOSPC, errno.EDQUOT):
                return None  # if it really fails, starts of containers will report it
            return _reason(e)
    return None


def _reason(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "the kernel has no overlay file system"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "mounting an overlay is not permitted here"
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA):
        return "the file system below the root cannot hold an overlay's layers"
    return f"mounting an overlay fails: {error.strerror}"


__all__ = ["LAYERS_MAX", "OverlaySnapshotter", "probe"]
