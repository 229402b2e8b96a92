"""Disk usage below the daemon's root, to the byte: every block belongs to exactly one part."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from wherry import threads
from wherry.errors import NotFound
from wherry.linux import trees
from wherry.storage.snapshots import COMMITTED, Snapshotter

_BLOCK = 512
_PARTS = {
    b"content/sha256": "blobs",
    b"content/ingest": "unfinished downloads",
    b"volumes": "volumes",
    b"containers": "logs and files of containers",
}
LAYERS, WRITABLE, ROWS, REST = "layers", "containers' changes", "records", "everything else"


@dataclass(frozen=True)
class DiskPart:
    """``size`` in bytes that are allocated on the disk."""

    what: str
    size: int


class DiskService:
    def __init__(self, *, root: Path, snapshotter: Snapshotter) -> None:
        self._root, self._snapshotter = root, snapshotter

    async def usage(self) -> list[DiskPart]:
        """All parts; their sum is what ``du`` reports."""
        return await threads.disk(self._measure)

    def _measure(self) -> list[DiskPart]:
        committed = {bytes(path): LAYERS for path in self._layers()}
        sizes = dict.fromkeys([*_PARTS.values(), LAYERS, WRITABLE, ROWS], 0)
        sizes[REST] = os.lstat(self._root).st_blocks * _BLOCK
        linked: set[tuple[int, int]] = set()
        for path, status in trees.walk(self._root):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                inode = (status.st_dev, status.st_ino)
                if inode in linked:
                    continue
                linked.add(inode)
            sizes[_part_of(path, committed)] += status.st_blocks * _BLOCK
        return [DiskPart(what, size) for what, size in sizes.items()]

    def _layers(self) -> list[Path]:
        """Directories of committed snapshots, below the root."""
        found = []
        for info in self._snapshotter.walk():
            if info.kind == COMMITTED:
                try:
                    files, _ = self._snapshotter.directories(info.key)
                except NotFound:
                    continue  # removed by the collector in this moment
                found.append(files.parent.relative_to(self._root))
        return found


def _part_of(path: bytes, committed: dict[bytes, str]) -> str:
    parts = path.split(b"/", 3)
    if parts[0] == b"snapshots" and len(parts) > 2:
        return committed.get(b"/".join(parts[:3]), WRITABLE)
    if parts[0].startswith(b"wherry.db"):
        return ROWS
    return _PARTS.get(b"/".join(parts[:2])) or _PARTS.get(parts[0]) or REST
