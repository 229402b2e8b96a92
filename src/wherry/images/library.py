"""The image rooms put together over one root: what the composition root opens, and closes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.images import Images
from wherry.storage.content import ContentStore
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases
from wherry.storage.snapshots import Snapshotter
from wherry.storage.tarformat import Limits
from wherry.storage.unpack import Unpacker


@dataclass(frozen=True)
class Library:
    """Everything below one root that has to do with images."""

    content: ContentStore
    leases: Leases
    snapshotter: Snapshotter
    unpacker: Unpacker
    layers: LayerStore
    images: ImageStore

    def close(self) -> None:
        """Wait for layers that are being unpacked."""
        self.layers.close()


def open_library(root: Path, db: Database, snapshotter: Snapshotter, limits: Limits | None = None) -> Library:
    """Open the stores below ``root``, sweep what a killed daemon left, and collect what it did not finish.

    :param limits: what a layer may ask for; the defaults otherwise.
    """
    contents = Contents(db)
    content = ContentStore(root, contents)
    leases = Leases(LeaseRows(db))
    unpacker = Unpacker(limits)
    layers = LayerStore(content, snapshotter, unpacker)
    collector = Collector(content, contents, snapshotter)
    images = ImageStore(Images(db), content, layers, leases, collector)
    collector.collect()
    return Library(content, leases, snapshotter, unpacker, layers, images)
