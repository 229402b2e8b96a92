"""Images from a client's own OCI store (``oci-layout`` contexts, local caches): hostile ones are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_tools import HOST, Layout, Library, descriptor, open_library, tree

from wherry.engine.builds.layouts import Layouts
from wherry.errors import InvalidArgument
from wherry.images.graph import DEPTH_MAX, DOCUMENTS_MAX
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest

pytestmark = pytest.mark.kernel


class Store:
    """A client's store that counts what is asked of it."""

    def __init__(self, layout: Layout) -> None:
        self._blobs = layout.blobs
        self.asked: list[Digest] = []

    async def read(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        self.asked.append(digest)
        write(self._blobs[digest])


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root")
    yield made
    made.layers.close()


def images(library: Library, layout: Layout, top: bytes) -> tuple[int, Store]:
    store = Store(layout)
    with library.leases.hold("test") as lease:
        found = asyncio.run(Layouts(library.images).images(store, digests.of(top), lease))  # type: ignore[arg-type]
    return len(found), store


def test_what_indexes_repeat_is_visited_once(library: Library) -> None:
    """Two hundred times two hundred times two hundred names of one image."""
    layout = Layout()
    platform = {"architecture": HOST.architecture, "os": HOST.os}
    one = descriptor(layout.manifest([tree(a="1")]), oci.MANIFEST, platform=platform)
    for _ in range(3):
        index = layout.index(*[one] * 200)
        one = descriptor(index, oci.INDEX)
    count, store = images(library, layout, index)
    assert count == 1
    assert len(store.asked) == len(set(store.asked)) == 5  # three indexes, manifest, configuration


def test_indexes_that_lie_too_deep(library: Library) -> None:
    layout = Layout()
    one = descriptor(layout.manifest([tree(a="1")]), oci.MANIFEST)
    for _ in range(DEPTH_MAX + 1):
        index = layout.index(one)
        one = descriptor(index, oci.INDEX)
    with pytest.raises(InvalidArgument, match="too deep"):
        images(library, layout, index)


def test_more_than_an_image_can_need(library: Library) -> None:
    layout = Layout()
    leaves = [descriptor(layout.index(), oci.INDEX)]
    for number in range(DOCUMENTS_MAX + 1):
        empty = layout.blob(b'{"schemaVersion": 2, "manifests": []%s}' % (b" " * number))
        leaves.append(descriptor(empty, oci.INDEX))
    index = layout.index(*leaves)
    with pytest.raises(InvalidArgument, match=f"more than {DOCUMENTS_MAX} manifests"):
        images(library, layout, index)
