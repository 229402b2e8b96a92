"""A library over a fresh root, and images made on the spot."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databases import open_database

from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.tarformat import TarLimits
from wherry.model.tarwriter import TarMember, archive
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.images import Images
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.content import ContentStore
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases
from wherry.storage.snapshots import Snapshotter

HOST = oci.host()


@dataclass
class Library:
    root: Path
    db: Database
    content: ContentStore
    leases: Leases
    snapshotter: Snapshotter
    unpacker: Unpacker
    layers: LayerStore
    images: ImageStore
    collector: Collector

    def state(self) -> dict[str, Any]:
        """Everything a failure could leave behind."""
        return {
            "content": sorted(os.listdir(self.root / "content/sha256")),
            "ingest": os.listdir(self.root / "content/ingest"),
            "rows": sorted(row.digest for row in self.content.walk()),
            "snapshots": sorted(info.key for info in self.snapshotter.walk()),
            "directories": len(os.listdir(self.root / "snapshots" / self.snapshotter.name)),
            "names": self.images.rows.names(),
            "images": [row.target for row in self.images.rows.all()],
            "leases": self.db.all("SELECT * FROM leases") + self.db.all("SELECT * FROM lease_items"),
            "descriptors": self._open_files(),
        }

    def _open_files(self) -> list[str]:
        """Files below the root that are open, but the database."""
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                path = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                continue
            if path.startswith(str(self.root)) and "wherry.db" not in path:
                found.append(path)
        return found


def open_library(root: Path, driver: str = "overlay", limits: TarLimits | None = None) -> Library:
    root.mkdir(exist_ok=True)
    db = open_database(root / "wherry.db", MIGRATIONS)
    kind = {"overlay": OverlaySnapshotter, "vfs": VfsSnapshotter}[driver]
    snapshotter = kind(root, Snapshots(db, driver))
    contents = Contents(db)
    content = ContentStore(root, contents)
    leases = Leases(LeaseRows(db))
    unpacker = Unpacker(limits)
    layers = LayerStore(content, snapshotter, unpacker)
    collector = Collector(content, contents, snapshotter)
    images = ImageStore(Images(db), content, layers, leases, collector)
    return Library(root, db, content, leases, snapshotter, unpacker, layers, images, collector)


def tree(**files: str) -> bytes:
    """A layer with these files; ``__`` in a name is a slash."""
    return archive(
        (TarMember(name=name.replace("__", "/").encode(), size=len(text)), text.encode())
        for name, text in sorted(files.items())
    )


def pack(files: Iterable[tuple[str, bytes]]) -> bytes:
    """An outer archive."""
    return archive((TarMember(name=name.encode(), size=len(data)), data) for name, data in files)


def config(
    layers: Sequence[bytes],
    *,
    platform: oci.Platform = HOST,
    diff_ids: Sequence[str] | None = None,
    **run: Any,
) -> bytes:
    raw: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": "2024-05-06T07:08:09.5Z",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or map(digests.of, layers))},
        "history": [
            {"created_by": f"step {n}", "created": "2024-05-06T07:08:09Z"} for n in range(len(layers))
        ],
    }
    if platform.variant:
        raw["variant"] = platform.variant
    return json.dumps(raw).encode()


def docker_archive(*layers: bytes, tags: Sequence[str] = (), **run: Any) -> bytes:
    """What docker save wrote before version 25."""
    made = config(layers, **run)
    name = digests.hex_of(digests.of(made)) + ".json"
    files = [(f"{number}/layer.tar", data) for number, data in enumerate(layers)]
    files.append((name, made))
    listed = {"Config": name, "RepoTags": list(tags) or None, "Layers": [path for path, _ in files[:-1]]}
    files.append(("manifest.json", json.dumps([listed]).encode()))
    return pack(files)


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digests.of(data), "size": len(data), **more}


class Layout:
    """An OCI layout that is being made."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def blob(self, data: bytes) -> bytes:
        self.blobs[digests.of(data)] = data
        return data

    def manifest(self, layers: Sequence[bytes], **options: Any) -> bytes:
        plain = options.pop("plain", layers)
        media_type = options.pop("layer_type", oci.LAYER)
        made = self.blob(config(plain, **options))
        raw = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": descriptor(made, oci.CONFIG),
            "layers": [descriptor(self.blob(layer), media_type) for layer in layers],
        }
        return self.blob(json.dumps(raw).encode())

    def index(self, *manifests: dict[str, Any]) -> bytes:
        raw = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(raw).encode())

    def add(self, data: bytes, media_type: str = oci.MANIFEST, name: str = "", **more: Any) -> None:
        annotations = {"io.containerd.image.name": name} if name else {}
        self.entries.append(descriptor(data, media_type, annotations=annotations, **more))

    def archive(self) -> io.BytesIO:
        files = [(f"blobs/sha256/{digests.hex_of(d)}", data) for d, data in sorted(self.blobs.items())]
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": self.entries}
        files.append(("index.json", json.dumps(index).encode()))
        files.append(("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'))
        return io.BytesIO(pack(files))
