"""Two images held against each other: what is the same counts as the same, whichever layer it is in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import Library, docker_archive, open_library

from wherry.images import archive
from wherry.images.compare import compare
from wherry.model.images import Image
from wherry.model.tarformat import DIRECTORY
from wherry.model.tarwriter import TarMember
from wherry.model.tarwriter import archive as tar

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["overlay", "vfs"])
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Library]:
    made = open_library(tmp_path / "root", request.param)
    yield made
    made.layers.close()


def layer(*files: tuple[str, str]) -> bytes:
    return tar(
        (
            TarMember(name=n.encode(), size=len(t), type=DIRECTORY if n.endswith("/") else b"0", mode=0o755),
            t.encode(),
        )
        for n, t in files
    )


def package(name: str, version: str) -> str:
    return f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n"


BASE = layer(
    ("d/", ""), ("d/a", "1"), ("d/b", "1"), ("var/", ""), ("var/lib/", ""), ("var/lib/dpkg/", ""),
    ("var/lib/dpkg/status", package("x", "1") + package("gone", "1")), ("keep", "same"),
)  # fmt: skip


def load(library: Library, name: str, *layers: bytes, **run: object) -> Image:
    data = docker_archive(*layers, tags=[f"{name}:1"], **run)
    archive.load(library.images, library.unpacker, io.BytesIO(data))
    return library.images.resolve(f"{name}:1")


def test_what_two_images_share_and_what_not(library: Library) -> None:
    a = load(library, "a", BASE, layer(("old", "1")), Env=["A=1", "B=1"], Cmd=["x"])
    top = layer(
        ("d/.wh.a", ""), ("d/b", "2"), ("keep", "same"), ("new", "123"),
        ("var/lib/dpkg/status", package("x", "2") + package("more", "1")),
    )  # fmt: skip
    b = load(library, "b", BASE, top, Env=["A=1", "B=2"])
    found = compare(library.images, a, b)
    assert [one.diff_id for one in found.shared] == [a.config.rootfs.diff_ids[0]]
    assert (len(found.only_before), len(found.only_after)) == (1, 1)
    assert [(c.key, c.before, c.after) for c in found.configuration] == [
        ("Cmd", '["x"]', None),
        ("Env B", "1", "2"),
    ]
    assert [(c.name, c.before, c.after) for c in found.packages] == [
        ("gone:all", "1", None),
        ("more:all", None, "1"),
        ("x:all", "1", "2"),
    ]
    assert [(c.path, c.kind) for c in found.files] == [
        ("/d/a", "removed"),
        ("/d/b", "changed"),
        ("/new", "added"),
        ("/old", "removed"),
        ("/var/lib/dpkg/status", "changed"),
    ]


def test_a_directory_emptied_anew_hides_what_was_below(library: Library) -> None:
    a = load(library, "a", BASE)
    b = load(library, "b", BASE, layer(("d/", ""), ("d/.wh..wh..opq", ""), ("d/c", "1")))
    assert [(c.path, c.kind) for c in compare(library.images, a, b).files] == [
        ("/d/a", "removed"),
        ("/d/b", "removed"),
        ("/d/c", "added"),
    ]
    assert compare(library.images, b, b).files == []
