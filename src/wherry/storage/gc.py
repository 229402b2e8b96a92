"""The collector: what no image, no lease and no container needs goes away.

Marking is the database's: images name their content and their layer chains in rows, leases theirs, and a
snapshot with children (a container's layer is one) stays. Rows go first, in one transaction each; files
follow, and a blob that a load brought back in between keeps its file.
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
    """Runs one collection at a time. Safe to use from any thread, beside loads and unpacking."""

    def __init__(self, content: ContentStore, rows: Contents, snapshotter: Snapshotter) -> None:
        self._content = content
        self._rows = rows
        self._snapshotter = snapshotter
        self._lock = threading.Lock()

    def collect(self) -> Collected:
        with self._lock:
            blobs = self._rows.delete_unreferenced()
            snapshots, freed = self._snapshotter.collect()
            return Collected(len(blobs), snapshots, freed + self._content.remove_files(blobs))
