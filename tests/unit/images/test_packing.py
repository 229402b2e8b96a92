"""Blobs made again of a layer's files: the same bytes, or none."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import Layout, Library, docker_archive, open_library, tree

from wherry.images import packing
from wherry.images.archive import load
from wherry.model import oci
from wherry.model.images import Image
from wherry.model.oci import Descriptor
from wherry.storage.diff import write_layer

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["overlay", "vfs"])
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Library]:
    made = open_library(tmp_path / "root", request.param)
    yield made
    made.layers.close()


def added(library: Library, name: str, *layers: bytes) -> Image:
    load(library.images, library.unpacker, io.BytesIO(docker_archive(*layers, tags=(name,))))
    return library.images.resolve(name)


def ours(library: Library) -> Image:
    """An image whose layers were packed here, the second on the first."""
    first = added(library, "first:1", tree(a="one", d__b="two"))
    below = io.BytesIO()
    write_layer(library.snapshotter, first.chain_ids[0], below)
    second = added(library, "second:1", below.getvalue(), tree(d__b="three", d__c="four"))
    above = io.BytesIO()
    write_layer(library.snapshotter, second.chain_ids[1], above)
    return added(library, "ours:1", below.getvalue(), above.getvalue())


def discard(library: Library, layer: Descriptor) -> bytes:
    data = library.content.path(layer.digest).read_bytes()
    assert library.content.discard(layer.digest)
    return data


def test_the_same_bytes_come_back(library: Library) -> None:
    image = ours(library)
    blobs = [discard(library, layer) for layer in image.manifest.layers]
    assert [blob for blob, _ in packing.missing(library.images, image.target)] == list(image.manifest.layers)
    assert library.images.is_whole(image)
    assert library.images.manifests(image.id)[0].available
    with library.leases.hold("test") as lease:
        assert packing.pack_all(library.images, image.target, lease) == []
        found = [library.content.path(layer.digest).read_bytes() for layer in image.manifest.layers]
    assert found == blobs
    assert not list(packing.missing(library.images, image.target))


def test_files_that_changed_give_nothing(library: Library) -> None:
    image = ours(library)
    discard(library, image.manifest.layers[1])
    (layer,) = packing.missing(library.images, image.target)
    assert packing.is_intact(library.images, layer)
    files, _ = library.snapshotter.directories(image.chain_ids[1])
    status = (files / "d/c").stat()
    (files / "d/c").write_text("FOUR")
    os.utime(files / "d/c", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not packing.is_intact(library.images, layer)
    before = library.state()
    with library.leases.hold("test") as lease:
        assert packing.pack_all(library.images, image.target, lease) == [layer]
    assert library.state() == before


def test_a_compressed_layer_is_not_made_again(library: Library) -> None:
    layout, plain = Layout(), tree(a="one")
    packed = [gzip.compress(plain, mtime=0)]
    layout.add(
        layout.manifest(packed, plain=[plain], layer_type=oci.LAYER_GZIP), name="docker.io/library/p:1"
    )
    load(library.images, library.unpacker, layout.archive())
    image = library.images.resolve("p:1")
    (blob,) = image.manifest.layers
    discard(library, blob)
    (layer,) = packing.missing(library.images, image.target)
    with library.leases.hold("test") as lease:
        assert not packing.pack(library.images, layer, lease)
    assert packing.is_intact(library.images, layer)
    assert not library.images.is_whole(image)
    assert not library.images.manifests(image.id)[0].available
