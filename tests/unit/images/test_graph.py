"""What an image reaches, with indexes that repeat, nest, or are too many."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import HOST, Library, config, descriptor, open_library, pack, tree

from wherry.errors import InvalidArgument
from wherry.images.archive import load
from wherry.images.archive_save import save
from wherry.model import digest as digests
from wherry.model import oci

pytestmark = pytest.mark.kernel


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root")
    yield made
    made.layers.close()


class Nested:
    """An OCI layout whose one target is made of indexes within indexes."""

    def __init__(self) -> None:
        layer = tree(a="1")
        self.blobs: dict[str, bytes] = {}
        made = config([layer])
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.add(made, oci.CONFIG),
            "layers": [self.add(layer, oci.LAYER)],
        }
        self.manifest = json.dumps(manifest).encode()
        self.top = self.add(self.manifest, oci.MANIFEST)

    def add(self, data: bytes, media_type: str, **more: object) -> dict[str, object]:
        self.blobs[digests.hex_of(digests.of(data))] = data
        return descriptor(data, media_type, **more)

    def index(self, entries: list[dict[str, object]]) -> dict[str, object]:
        data = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}).encode()
        self.top = self.add(data, oci.INDEX)
        return self.top

    def archive(self) -> bytes:
        annotations = {"io.containerd.image.name": "docker.io/library/nested:1"}
        top = {"schemaVersion": 2, "manifests": [{**self.top, "annotations": annotations}]}
        files = [(f"blobs/sha256/{name}", data) for name, data in self.blobs.items()]
        return pack([*files, ("index.json", json.dumps(top).encode())])


def loaded(library: Library, nested: Nested) -> None:
    load(library.images, library.unpacker, io.BytesIO(nested.archive()))


def test_repeated_entries_are_visited_once(library: Library) -> None:
    nested = Nested()
    for _ in range(4):
        nested.index([nested.top] * 1000)
    began = time.process_time()
    loaded(library, nested)
    (listed,) = library.images.list(manifests=True)
    assert [m.descriptor.digest for m in listed.manifests] == [digests.of(nested.manifest)]
    library.images.resolve("nested:1")
    save(library.images, ["nested:1"], io.BytesIO())
    assert time.process_time() - began < 3


def test_what_is_nested_too_deeply_is_refused(library: Library) -> None:
    nested = Nested()
    for _ in range(5):
        nested.index([nested.top])
    before = library.state()
    with pytest.raises(InvalidArgument, match="nested more than 4 deep"):
        loaded(library, nested)
    assert library.state() == before


def test_too_many_manifests_are_refused(library: Library) -> None:
    nested = Nested()
    nested.index([nested.index([nested.top]), *(nested.index([nested.top] * (n + 2)) for n in range(1100))])
    before = library.state()
    with pytest.raises(InvalidArgument, match="more than 1024 manifests and indexes"):
        loaded(library, nested)
    assert library.state() == before


def test_one_manifest_for_two_platforms_is_both(library: Library) -> None:
    nested = Nested()
    entries = [
        {**nested.top, "platform": {"os": "linux", "architecture": architecture}}
        for architecture in (HOST.architecture, "riscv64")
    ]
    nested.index([*entries, *entries])
    loaded(library, nested)
    (listed,) = library.images.list(manifests=True)
    assert [str(m.platform) for m in listed.manifests] == [f"linux/{HOST.architecture}", "linux/riscv64"]
