"""The collector: removes what no image, lease or container needs.

The database does the marking: rows say which content and layer chains images and leases need, and a snapshot
with children (such as a container's layer) stays. Rows are deleted first, each in one transaction; then the
files. If a load stores a blob again in between, it keeps its file.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from wherry.state.content import Contents
from wherry.storage.content import ContentStore
from wherry.storage.snapshots import Snapshotter


@dataclass(frozen=True)
class Collected:
    """What one run removed; ``freed`` in bytes of blobs and snapshots."""

    blobs: int
    snapshots: int
    freed: int


class Collector:
    """Runs one collection at a time. Safe to use from any thread, while loads and unpacking go on."""

    def __init__(self, content: ContentStore, rows: Contents, snapshotter: Snapshotter) -> None:
        self._content = content
        self._rows = rows
        self._snapshotter = snapshotter
        self._lock = threading.Lock()

    def collect(self) -> Collected:
        with self._lock, self._content.going(self._rows.unreferenced()):
            blobs = self._rows.delete_unreferenced()
            snapshots, freed = self._snapshotter.collect()
            return Collected(len(blobs), snapshots, freed + self._content.remove_files(blobs))
