"""What drivers share whose snapshots are directories: rows, one directory a snapshot, sweeping.

    <root>/snapshots/<driver>/<id>/fs      the files
    <root>/snapshots/<driver>/<id>/work    overlayfs's own, where needed

``<id>`` is the row's number in base 36, as short as can be: mount data is scarce.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

from wherry.errors import Conflict, Internal, NotFound, Unavailable
from wherry.linux import trees
from wherry.model.mount import Mount
from wherry.state.snapshots import SnapshotRow, Snapshots
from wherry.storage.snapshots import ACTIVE, COMMITTED, UNPACK_PREFIX, VIEW, SnapshotInfo, Usage

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENOSPC = (28, 122)


class DirectorySnapshotter(ABC):
    """Everything but how the files come about and how they are mounted."""

    name: str
    rebase: bool

    def __init__(self, root: Path, rows: Snapshots) -> None:
        """:param root: the daemon's root. Leftovers of a killed daemon are removed."""
        self.root = root / "snapshots" / self.name
        self._rows = rows
        self._lock = threading.Lock()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cleanup()

    @abstractmethod
    def _mounts(self, row: SnapshotRow) -> list[Mount]: ...

    @abstractmethod
    def _fill(self, row: SnapshotRow, directory: Path) -> None:
        """Make the files of a new snapshot in its empty directory."""

    def directory(self, snapshot_id: int) -> Path:
        """Where a snapshot's files are kept."""
        return self.root / short(snapshot_id)

    def prepare(self, key: str, parent: str | None = None) -> list[Mount]:
        return self._make(key, ACTIVE, parent)

    def view(self, key: str, parent: str | None = None) -> list[Mount]:
        return self._make(key, VIEW, parent)

    def _make(self, key: str, kind: str, parent: str | None) -> list[Mount]:
        row = self._rows.insert(key, kind, parent)
        directory = self.directory(row.id)
        try:
            directory.mkdir(mode=0o700)
            self._fill(row, directory)
            return self._mounts(row)
        except BaseException as e:
            trees.remove(directory)  # first of all: on a full disk the row could not go
            self._rows.delete(key)
            if isinstance(e, OSError) and e.errno in _ENOSPC:
                raise Unavailable(f"cannot make snapshot {key}: no space left on device") from e
            if isinstance(e, OSError):
                raise Internal(f"cannot make snapshot {key}: {e.strerror}") from e
            raise

    def mounts(self, key: str) -> list[Mount]:
        row = self._rows.get(key)
        if row.kind == COMMITTED:
            raise NotFound(f"cannot mount snapshot {key}: it is committed")
        return self._mounts(row)

    def commit(self, name: str, key: str, *, parent: str | None = None, usage: Usage | None = None) -> None:
        rebase = parent is not None
        row = self._rows.get(key)
        if rebase and (not self.rebase or row.parent is not None):
            raise Conflict(f"cannot commit snapshot {key}: it cannot get another parent")
        if usage is None:
            usage = self._measure(row)
        self._rows.commit(key, name, size=usage.bytes, inodes=usage.inodes, parent=parent, rebase=rebase)

    def _measure(self, row: SnapshotRow) -> Usage:
        if row.kind == VIEW:
            return Usage(0, 0)
        try:
            size = trees.measure(self.directory(row.id) / "fs")
        except FileNotFoundError as e:
            raise NotFound(f"no such snapshot: {row.key}") from e
        return Usage(size.size, size.inodes)

    def rename(self, old: str, new: str) -> bool:
        return self._rows.rename(old, new)

    def remove(self, key: str) -> None:
        if key.startswith(UNPACK_PREFIX):
            # never whole, so nothing is lost by files first; on a full disk the row could not go
            trees.remove(self.directory(self._rows.get(key).id))
        snapshot_id = self._rows.delete(key)
        trees.remove(self.directory(snapshot_id))

    def stat(self, key: str) -> SnapshotInfo:
        return _info(self._rows.get(key))

    def usage(self, key: str) -> Usage:
        row = self._rows.get(key)
        return Usage(row.size, row.inodes) if row.kind == COMMITTED else self._measure(row)

    def walk(self) -> list[SnapshotInfo]:
        return [_info(row) for row in self._rows.all()]

    def collect(self) -> tuple[int, int]:
        freed = 0
        gone = self._rows.delete_unreferenced()
        for snapshot_id, size in gone:
            freed += size
            trees.remove(self.directory(snapshot_id))
        return len(gone), freed

    def problems(self) -> dict[str, str]:
        found = {}
        for row in self._rows.all():
            if row.kind != COMMITTED:
                continue
            try:
                now = trees.measure(self.directory(row.id) / "fs")
            except FileNotFoundError:
                found[row.key] = "its directory is gone"
                continue
            if now.inodes != row.inodes:
                found[row.key] = f"it has {now.inodes} files, not {row.inodes}"
        return found

    def cleanup(self) -> int:
        with self._lock:
            for row in reversed(self._rows.all()):
                if row.kind != COMMITTED and row.key.startswith(UNPACK_PREFIX):
                    self._rows.delete(row.key)
            known = {short(row.id) for row in self._rows.all()}
            orphans = [path for path in self.root.iterdir() if path.name not in known]
            for path in orphans:
                trees.remove(path)
            return len(orphans)


def short(number: int) -> str:
    """A positive number in base 36."""
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _info(row: SnapshotRow) -> SnapshotInfo:
    return SnapshotInfo(row.key, row.kind, row.parent_key, row.created)
