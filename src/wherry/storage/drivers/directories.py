"""The common part of drivers whose snapshots are directories: rows, one directory per snapshot, sweeping.

    <root>/snapshots/<driver>/<id>/fs      the files
    <root>/snapshots/<driver>/<id>/work    overlayfs's own, where needed
    <root>/snapshots/<driver>/<id>/about   its row in JSON, of which a lost row is made again
    <root>/snapshots/<driver>/.going-<id>  being removed

``<id>`` is the row's number in base 36, as short as possible: the kernel limits the length of mount options.

A directory is marked (:mod:`wherry.linux.unsettled`) before its files are made, until they are complete: a
layer until it is committed, a container's until its owner calls ``settle``. A directory with neither mark nor
row is somebody's data. It is taken up again with the help of ``about``; if that is not possible, it is set
aside.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from wherry.errors import Conflict, Internal, NotFound, Unavailable
from wherry.linux import files, trees, unsettled
from wherry.linux.lostfound import LostFound
from wherry.linux.syncing import Syncing
from wherry.model import typed
from wherry.model.mount import Mount
from wherry.state.snapshots import SnapshotRow, Snapshots
from wherry.storage.snapshots import ACTIVE, COMMITTED, UNPACK_PREFIX, VIEW, SnapshotInfo, SnapshotUsage

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENOSPC = (28, 122)
_ABOUT, _GOING = "about", ".going-"

log = logging.getLogger(__name__)


class SnapshotFacts(msgspec.Struct, frozen=True):
    """The facts of a snapshot's row; ``parent`` is the name of a committed snapshot."""

    key: str
    kind: str
    parent: str | None
    size: int = 0
    inodes: int = 0


class DirectorySnapshotter(ABC):
    """Everything except making the files and mounting them."""

    name: str
    rebase: bool

    def __init__(self, root: Path, rows: Snapshots) -> None:
        """:param root: the daemon's root. Leftovers of a killed daemon are removed."""
        self.root = root / "snapshots" / self.name
        self._lost = LostFound(root)
        self._syncing = Syncing(self.root)
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
        """The directory with a snapshot's files."""
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
            if kind != VIEW:
                unsettled.mark(directory)
                self._describe(row)
            self._fill(row, directory)
            return self._mounts(row)
        except BaseException as e:
            trees.remove(directory)  # before anything else: on a full disk the row could not be deleted
            self._rows.delete(key)
            if isinstance(e, OSError) and e.errno in _ENOSPC:
                raise Unavailable(f"cannot make snapshot {key}: no space left on device") from e
            if isinstance(e, OSError):
                raise Internal(f"cannot make snapshot {key}: {e.strerror}") from e
            raise

    def _describe(self, row: SnapshotRow) -> None:
        about = SnapshotFacts(row.key, row.kind, row.parent_key, row.size, row.inodes)
        files.write_atomic(self.directory(row.id) / _ABOUT, msgspec.json.encode(about), durable=False)

    def settle(self, key: str) -> None:
        unsettled.settle(self.directory(self._rows.get(key).id))

    def unsettle(self, key: str) -> None:
        with suppress(FileNotFoundError):
            unsettled.mark(self.directory(self._rows.get(key).id))

    def is_settled(self, key: str) -> bool:
        directory = self.directory(self._rows.get(key).id)
        return directory.is_dir() and not unsettled.is_marked(directory)

    def set_aside(self, key: str, why: str) -> str:
        row = self._rows.get(key)
        line = self._lost.set_aside(self.directory(row.id), "layer", key, why)
        self._rows.delete(key)
        return line

    def mounts(self, key: str) -> list[Mount]:
        row = self._rows.get(key)
        if row.kind == COMMITTED:
            raise NotFound(f"cannot mount snapshot {key}: it is committed")
        return self._mounts(row)

    def sync(self) -> None:
        try:
            self._syncing.sync()
        except OSError as e:
            raise Internal(f"cannot make snapshots durable: {e.strerror}") from e

    def _sync_one(self, row: SnapshotRow) -> None:
        directory = self.directory(row.id)
        try:
            self._syncing.sync_tree(directory / "fs")
            files.sync_directory(self.root)
        except FileNotFoundError as e:
            raise NotFound(f"no such snapshot: {row.key}") from e
        except OSError as e:
            raise Internal(f"cannot make snapshot {row.key} durable: {e.strerror}") from e

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
        row = self._rows.get(key)
        if not synced:
            self._sync_one(row)
        rebase = parent is not None
        if rebase and (not self.rebase or row.parent is not None):
            raise Conflict(f"cannot commit snapshot {key}: it cannot get another parent")
        if usage is None:
            usage = self._measure(row)
        elif not self.rebase and row.parent is not None:
            # The given usage covers the layer's own files only. The directory also has the parent's, and
            # later checks count them.
            usage = SnapshotUsage(usage.bytes, self._measure(row).inodes)
        made = SnapshotFacts(name, COMMITTED, parent if rebase else row.parent_key, usage.bytes, usage.inodes)
        directory = self.directory(row.id)
        files.write_atomic(directory / _ABOUT, msgspec.json.encode(made), durable=False)
        self._rows.commit(key, name, size=usage.bytes, inodes=usage.inodes, parent=parent, rebase=rebase)
        unsettled.settle(directory)

    def has_files(self, key: str, *, parents: bool = False) -> bool:
        row = self._rows.find(key)
        if row is None:
            return False
        wanted = self._rows.chain(row.id) if parents else [row.id]
        return all((self.directory(one) / "fs").is_dir() for one in wanted)

    def replace_lost(self, name: str, key: str) -> bool:
        row, new = self._rows.get(name), self._rows.get(key)
        with self._lock:
            if row.kind != COMMITTED or self.has_files(name):
                return False
            self._discard(self.directory(row.id))
            self.directory(new.id).rename(self.directory(row.id))
            self._describe(row)
            trees.remove(self.directory(row.id) / "work")
            unsettled.settle(self.directory(row.id))
        self._rows.delete(key)
        log.info("unpacked layer %s again, as its files were missing", name[:19])
        return True

    def _measure(self, row: SnapshotRow) -> SnapshotUsage:
        if row.kind == VIEW:
            return SnapshotUsage(0, 0)
        try:
            size = trees.measure(self.directory(row.id) / "fs")
        except FileNotFoundError as e:
            raise NotFound(f"no such snapshot: {row.key}") from e
        return SnapshotUsage(size.size, size.inodes)

    def rename(self, old: str, new: str) -> bool:
        if not self._rows.rename(old, new):
            return False
        self._describe(self._rows.get(new))
        return True

    def remove(self, key: str) -> None:
        directory = self.directory(self._rows.get(key).id)
        if key.startswith(UNPACK_PREFIX):
            # it was never complete, so the files can go first; on a full disk the row could not be deleted
            self._discard(directory)
        else:
            with suppress(OSError):  # gone already, or no room: then a killed daemon leaves it to be taken up
                unsettled.mark(directory)
        try:
            self._rows.delete(key)
        except Conflict:
            unsettled.settle(directory)
            raise
        self._discard(directory)

    def _discard(self, directory: Path) -> None:
        """A rename makes it no snapshot in one step: a half removed directory must not look like one."""
        going = self.root / f"{_GOING}{directory.name}"
        with suppress(FileNotFoundError):
            directory.rename(going)
        trees.remove(going)

    def stat(self, key: str) -> SnapshotInfo:
        return _info(self._rows.get(key))

    def usage(self, key: str) -> SnapshotUsage:
        row = self._rows.get(key)
        return SnapshotUsage(row.size, row.inodes) if row.kind == COMMITTED else self._measure(row)

    def walk(self) -> list[SnapshotInfo]:
        return [_info(row) for row in self._rows.all()]

    def collect(self) -> tuple[int, int]:
        freed = 0
        gone = self._rows.delete_unreferenced()
        for snapshot_id, size in gone:
            freed += size
            self._discard(self.directory(snapshot_id))
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
            rows = {short(row.id): row for row in self._rows.all()}
            names = set(os.listdir(self.root))
            for name in names & rows.keys():
                if rows[name].kind == COMMITTED:
                    unsettled.settle(self.root / name)
            for name, row in rows.items():
                self._mend(row, self.root / name)
            # If an older database was restored, its next numbers may belong to directories that exist.
            self._rows.start_above(max((number(name) for name in names), default=0))
            found: dict[str, SnapshotFacts] = {}
            went = 0
            for name in sorted(names - rows.keys()):
                about = self._about(self.root / name)
                if about is None:
                    went += 1
                else:
                    found[name] = about
            return went + self._take_up(found)

    def _mend(self, row: SnapshotRow, directory: Path) -> None:
        """Restore what a power cut may have lost although the row exists: an empty directory, and its
        description. If files had been synced in the directory, it would exist: so there were none."""
        if row.kind == ACTIVE and not (directory / "fs").is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)
            self._fill(row, directory)
            log.info("recreated the empty layer of %s", row.key[:12])
        about = directory / _ABOUT
        if row.kind != VIEW and directory.is_dir() and not (about.exists() and about.stat().st_size):
            self._describe(row)

    def _about(self, directory: Path) -> SnapshotFacts | None:
        """The description in a directory without a row;
        ``None`` if the directory was removed as a leftover or set aside."""
        if directory.name.startswith(_GOING) or unsettled.is_marked(directory):
            trees.remove(directory)
            return None
        try:
            about = typed.from_json((directory / _ABOUT).read_bytes(), SnapshotFacts)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            about = None
        if about is not None and number(directory.name):
            if about.kind == VIEW or about.key.startswith(("build-", UNPACK_PREFIX)):
                trees.remove(directory)  # it has no files of its own, or is a step that can be built again
                return None
            return about
        if not _has_files(directory):
            trees.remove(directory)
            return None
        log.warning("%s", self._lost.set_aside(directory, "layer", directory.name, "no row knows it"))
        return None

    def _take_up(self, found: dict[str, SnapshotFacts]) -> int:
        """Restore the rows of complete snapshots, parents first; return how many were removed instead."""
        went, progress = 0, True
        while found and progress:
            progress = False
            for name, about in list(found.items()):
                if about.parent is not None and self._rows.find(about.parent) is None:
                    continue
                del found[name]
                progress = True
                went += not self._take_up_one(self.root / name, about)
        for name, about in found.items():
            why = f"no row knows it, and the layer {about.parent} below it is not here"
            log.warning("%s", self._lost.set_aside(self.root / name, "layer", about.key, why))
        return went + len(found)

    def _take_up_one(self, directory: Path, about: SnapshotFacts) -> bool:
        why = ""
        if about.kind == COMMITTED:
            if self._rows.find(about.key) is not None:
                self._discard(directory)  # another directory has the same snapshot
                return False
            if trees.measure(directory / "fs").inodes != about.inodes:
                why = "no row knows it, and files of it are missing"
        elif self._rows.find(about.key) is not None:
            why = "no row knows it, and there is another one of the same container"
        if why:
            log.warning("%s", self._lost.set_aside(directory, "layer", about.key, why))
            return False
        self._rows.take_up(
            SnapshotRow(
                number(directory.name), about.key, about.kind, None, about.parent, 0, about.size, about.inodes
            )
        )
        log.info("added a row for layer %s, which had none", about.key[:19])
        return True


def number(name: str) -> int:
    """The number that :func:`short` turned into ``name``; 0 for any other name."""
    if not name or name.strip(_DIGITS) or name.startswith("0"):
        return 0
    return int(name, 36)


def _has_files(directory: Path) -> bool:
    try:
        return bool(os.listdir(directory / "fs"))
    except OSError:
        return directory.is_file() or any(entry.name not in ("fs", "work") for entry in directory.iterdir())


def short(number: int) -> str:
    """A positive number in base 36."""
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _info(row: SnapshotRow) -> SnapshotInfo:
    return SnapshotInfo(row.key, row.kind, row.parent_key, row.created)
