"""The build cache: results of steps as snapshots, contexts, fetched sources, cache mounts; all of it bounded.

    <root>/build/contexts/<id>      see storage.contexts
    <root>/build/cachemounts/<id>   what RUN --mount=type=cache keeps
    <root>/build/fetched/<id>       what ADD fetched

A step's files are a committed snapshot named ``build-<id>`` until an image uses it as a layer. Then it is
renamed to its chain id, and the image and the cache share it. Every entry has a row; anything without a row
is removed at the next start.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import NotFound
from wherry.linux import trees
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.solver.solve import Result
from wherry.state.builds import CACHE_MOUNT, LOCAL, REGULAR, BuildRows, RecordRow
from wherry.storage.contexts import ContextStore
from wherry.storage.snapshots import UNPACK_PREFIX, Snapshotter

log = logging.getLogger(__name__)
_PREFIX = "build-"
_SHARE = 10
"""The default bound: percent of the disk that the cache may use."""


@dataclass(frozen=True)
class CacheUsage:
    """One record, as shown to users.
    ``shared``: an image uses its files as well; ``in_use``: a build uses it."""

    row: RecordRow
    in_use: bool
    shared: bool


@dataclass(frozen=True)
class Bounds:
    """What a prune keeps, in bytes; 0: no bound. ``reserved`` is kept whatever the other bounds say."""

    reserved: int = 0
    most: int = 0
    free: int = 0


class BuildCache:
    """Safe to use from any thread."""

    def __init__(
        self,
        root: Path,
        rows: BuildRows,
        snapshotter: Snapshotter,
        contexts: ContextStore,
        collect: Callable[[], object],
    ) -> None:
        """:param root: ``<root>/build``. :param collect: removes snapshots that are no longer needed."""
        self.root, self.rows, self.snapshotter, self.contexts = root, rows, snapshotter, contexts
        self._collect = collect
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        for name in ("cachemounts", "fetched"):
            (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    def _sweep(self) -> None:
        """Remove unfinished data of a killed daemon, directories without a row,
        and rows without a directory."""
        for entry in self.root.glob("scratch-*"):
            trees.remove(entry)
        known = {row.place for row in self.rows.all() if row.place}
        for kind in ("cachemounts", "fetched", "contexts"):
            for entry in (self.root / kind).iterdir():
                if f"{kind}/{entry.name}" not in known:
                    trees.remove(entry)
        for row in self.rows.all():
            if row.place and not (self.root / row.place).is_dir():
                self.rows.delete(row.id)

    # ---- finding -------------------------------------------------------------------------------------------

    def find(self, keys: Sequence[str]) -> RecordRow | None:
        """The record for the first of the keys that has one with existing files."""
        for key in keys:
            row = self.rows.find([key])
            if row is None:
                continue
            if row.snapshot is not None and not self._exists(row.snapshot):
                self.rows.delete(row.id)
                continue
            return row
        return None

    def _exists(self, snapshot: str) -> bool:
        try:
            self.snapshotter.stat(snapshot)
        except NotFound:
            return False
        return True

    def hold(self, record: str) -> None:
        """A build needs a record: it is kept until :meth:`release`."""
        with self._lock:
            self._held[record] += 1

    def release(self, records: Sequence[str]) -> None:
        with self._lock:
            for record in records:
                self._held[record] -= 1
                if not self._held[record]:
                    del self._held[record]

    def snapshot_of(self, result: Result) -> str | None:
        """The committed snapshot with a result's files."""
        if not result.record:
            return result.snapshot
        row = self.rows.get(result.record)
        if row is None:
            raise NotFound(f"build record {result.record} is gone")
        return row.snapshot

    # ---- making --------------------------------------------------------------------------------------------

    def prepare(self, parent: Result | None) -> tuple[str, Mount]:
        """A writable snapshot on a result: its key, and its mount."""
        key = f"{UNPACK_PREFIX}{_PREFIX}{secrets.token_hex(10)}"
        with self._lock:  # nobody may rename it between finding the name and using it
            snapshot = self.snapshot_of(parent) if parent is not None else None
            return key, self.snapshotter.prepare(key, snapshot)[0]

    def view(self, result: Result) -> tuple[str, Mount]:
        """A read-only view of a result."""
        key = f"{UNPACK_PREFIX}{_PREFIX}{secrets.token_hex(10)}"
        with self._lock:
            return key, self.snapshotter.view(key, self.snapshot_of(result))[0]

    def discard(self, key: str) -> None:
        self.snapshotter.remove(key)

    def commit(
        self,
        key: str,
        parent: Result | None,
        keys: Sequence[str],
        description: str,
        keep: Callable[[str], None],
    ) -> Result:
        """Commit a snapshot as the result for ``keys``.

        :param keep: called with the snapshot's name before the commit, to protect it from the collector until
        it has a row.
        """
        name = _PREFIX + secrets.token_hex(10)
        keep(name)
        self.snapshotter.commit(name, key)  # measures it as well
        return self._insert(name, parent, keys, description, self.snapshotter.usage(name).bytes)

    def adopt(
        self,
        snapshot: str | None,
        parent: Result | None,
        keys: Sequence[str],
        description: str,
        *,
        created: int = 0,
    ) -> Result:
        """Add a record for an existing snapshot: a step that changed nothing, or an imported layer."""
        return self._insert(snapshot, parent, keys, description, 0, created)

    def _insert(
        self,
        snapshot: str | None,
        parent: Result | None,
        keys: Sequence[str],
        description: str,
        size: int,
        created: int = 0,
    ) -> Result:
        now = created or time.time_ns()
        record = RecordRow(
            secrets.token_hex(12),
            REGULAR,
            snapshot,
            None,
            parent.record if parent is not None else "",
            description[:1000],
            now,
            time.time_ns(),
            1,
            size,
        )
        self.hold(record.id)
        self.rows.insert(record, keys)
        return Result(keys[-1], record=record.id, created=now)

    def publish(self, snapshot: str, chain_id: Digest) -> bool:
        """Rename a step's snapshot to its chain id; ``False`` if a snapshot with that name exists already."""
        with self._lock:
            return self.snapshotter.rename(snapshot, chain_id)

    def place(self, kind: str, directory: str, key: str, description: str) -> RecordRow:
        """The record of a directory with this ``key``; created if there is none."""
        with self._lock:
            row = self.rows.find([key])
            if row is None:
                now = time.time_ns()
                identifier = secrets.token_hex(12)
                place = f"{directory}/{identifier}"
                (self.root / place).mkdir(mode=0o755)
                row = RecordRow(identifier, kind, None, place, "", description[:1000], now, now, 0, 0)
                self.rows.insert(row, [key])
            self._held[row.id] += 1
        self.rows.touch([row.id])
        return row

    def note_context(self, identifier: str, description: str, size: int) -> None:
        """Record that a synced context is in use; its size counts as cache."""
        place = f"contexts/{identifier}"
        row = self.rows.at(place)
        if row is None:
            now = time.time_ns()
            row = RecordRow(secrets.token_hex(12), LOCAL, None, place, "", description, now, now, 0, size)
            self.rows.insert(row, [])
        elif row.size != size:
            self.rows.resize(row.id, size)
        self.rows.touch([row.id])

    def remeasure(self, row_id: str) -> None:
        """Measure a directory again after it was used."""
        row = self.rows.get(row_id)
        if row is not None and row.place:
            try:
                self.rows.resize(row.id, trees.measure(self.root / row.place).size)
            except FileNotFoundError:
                return

    # ---- looking and pruning -------------------------------------------------------------------------------

    def usage(self) -> list[CacheUsage]:
        shared = self.rows.shared()
        with self._lock:
            held = set(self._held)
        return [CacheUsage(row, row.id in held, row.snapshot in shared) for row in self.rows.all()]

    def prune(self, wanted: Callable[[CacheUsage], bool], bounds: Bounds) -> tuple[list[str], int]:
        """Remove what ``wanted`` selects, least recently used first, until the bounds are met.

        Returns the removed ids and the number of bytes.
        """
        usage = self.usage()
        total = sum(one.row.size for one in usage if not one.shared)
        free = shutil.disk_usage(self.root).free
        gone: list[str] = []
        freed = 0
        children = Counter(one.row.parent for one in usage)
        bounded = bool(bounds.most or bounds.free or bounds.reserved)
        pending = [one for one in usage if wanted(one) and not one.in_use]
        progress = True
        while pending and progress:
            progress = False
            for one in list(pending):
                if bounded and not _too_much(total - freed, free + freed, bounds):
                    return self._finish(gone, freed)
                if children[one.row.id]:
                    continue  # records built on it must be removed first
                pending.remove(one)
                progress = True
                if self._remove(one):
                    gone.append(one.row.id)
                    children[one.row.parent] -= 1
                    freed += 0 if one.shared else one.row.size
                    break
        return self._finish(gone, freed)

    def _finish(self, gone: list[str], freed: int) -> tuple[list[str], int]:
        if gone:
            self._collect()
            self.rows.forget_layers()
        return gone, freed

    def _remove(self, one: CacheUsage) -> bool:
        row = one.row
        with self._lock:
            if self._held[row.id]:
                return False
            del self._held[row.id]
            if row.kind != LOCAL:
                self.rows.delete(row.id)
        if row.kind == LOCAL and row.place:
            if not self.contexts.remove(os.path.basename(row.place)):
                return False
            self.rows.delete(row.id)
        elif row.place:
            trees.remove(self.root / row.place)
        return True

    def keep_bound(self, most: int = 0) -> None:
        """Called after a build: shrink the cache to ``most`` bytes, or to the default share of the disk."""
        bound = most or shutil.disk_usage(self.root).total * _SHARE // 100
        total = sum(one.row.size for one in self.usage() if not one.shared)
        if total > bound:
            gone, freed = self.prune(lambda _one: True, Bounds(most=bound))
            log.info("removed %d records of the build cache (%d bytes) to keep its bound", len(gone), freed)


def _too_much(size: int, free: int, bounds: Bounds) -> bool:
    if bounds.reserved and size <= bounds.reserved:
        return False
    if bounds.most and size > bounds.most:
        return True
    if bounds.free and free < bounds.free:
        return True
    return not bounds.most and not bounds.free


__all__ = ["CACHE_MOUNT", "Bounds", "BuildCache", "CacheUsage"]
