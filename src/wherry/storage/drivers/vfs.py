"""Snapshots as plain copies: slow and large, but they work on every file system.

    <root>/snapshots/vfs/<id>/fs      the whole tree, its parents' files included

If the file system can share blocks (btrfs, xfs), a copy costs almost nothing; holes stay holes.
"""

from __future__ import annotations

from pathlib import Path

from wherry.errors import Internal, Unavailable
from wherry.linux.process import CommandFailed, run
from wherry.model.mount import Mount
from wherry.state.snapshots import SnapshotRow
from wherry.storage.drivers.directories import DirectorySnapshotter
from wherry.storage.snapshots import ACTIVE, UNPACK_PREFIX, VIEW

_COPY_TIMEOUT = 3600.0


class VfsSnapshotter(DirectorySnapshotter):
    """See :class:`wherry.storage.snapshots.Snapshotter`."""

    name = "vfs"
    rebase = False

    def _fill(self, row: SnapshotRow, directory: Path) -> None:
        files = directory / "fs"
        files.mkdir(mode=0o755, exist_ok=True)
        if row.kind == VIEW or row.parent is None:
            return
        source = self.directory(row.parent) / "fs"
        argv = ["cp", "-a", "--reflink=auto", "--sparse=auto", "-T", "--", str(source), str(files)]
        try:
            run(argv, timeout=_COPY_TIMEOUT)
        except CommandFailed as e:
            if "No space left" in e.stderr:
                raise Unavailable(f"cannot make snapshot {row.key}: no space left on device") from e
            raise Internal(f"cannot make snapshot {row.key}: {e.message}") from e
        if not row.key.startswith(UNPACK_PREFIX):
            self.sync()  # now its owner uses it; unpacked layers are synced when they are complete

    def _mounts(self, row: SnapshotRow) -> list[Mount]:
        if row.kind == ACTIVE:
            return [Mount("bind", str(self.directory(row.id) / "fs"), ("rbind", "rw"))]
        shown = row.id if row.parent is None else row.parent
        return [Mount("bind", str(self.directory(shown) / "fs"), ("rbind", "ro"))]

    def directories(self, key: str) -> tuple[Path, Path | None]:
        row = self._rows.get(key)
        parent = None if row.parent is None else self.directory(row.parent) / "fs"
        return self.directory(row.id) / "fs", parent
