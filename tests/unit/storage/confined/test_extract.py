"""An archive extracted where somebody else puts things at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry.linux.containerroot import Root, own_descriptors
from wherry.model import tarformat as tf
from wherry.model.tarformat import Buffered, Entry, TarLimits, TarReader
from wherry.model.tarwriter import TarMember, archive
from wherry.storage.confined.child.extract import Extractor

pytestmark = pytest.mark.kernel


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "t").mkdir()
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text("kept")
    return place / "file"


def extract(target: Path, *members: TarMember) -> None:
    data = iter([archive((m, b"x" * m.size) for m in members)])
    top, descriptors = os.open(target, os.O_PATH | os.O_DIRECTORY), own_descriptors()
    root = Root(descriptors)
    try:
        reader = TarReader(Buffered(lambda: next(data, b"")), TarLimits())
        Extractor(root, top, reader, None, keep_kinds=False).run()
    finally:
        for fd in (top, root.fd, descriptors):
            os.close(fd)


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
@pytest.mark.parametrize(
    "member",
    [
        TarMember(name=b"f", size=3),
        TarMember(name=b"f", type=tf.SYMLINK, linkname=b"elsewhere"),
        TarMember(name=b"f", type=tf.FIFO),
    ],
    ids=["file", "link", "fifo"],
)
def test_what_comes_between_is_replaced_and_not_written_to(
    victim: Path, kind: str, member: TarMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, before = victim.parents[1] / "t", victim.stat()
    make_room = Extractor._make_room

    def raced(self: Extractor, entry: Entry, path: bytes, name: bytes) -> bool:
        found = make_room(self, entry, path, name)
        place = target / "f"
        place.symlink_to(victim) if kind == "symbolic" else place.hardlink_to(victim)
        return found

    monkeypatch.setattr(Extractor, "_make_room", raced)
    extract(target, member)
    after = victim.stat()
    assert victim.read_text() == "kept"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
    made = (target / "f").lstat()
    assert made.st_ino != after.st_ino


def test_a_directory_that_becomes_a_link_is_not_entered(
    victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = victim.parents[1] / "t"
    before = victim.parent.stat()
    make_room = Extractor._make_room

    def raced(self: Extractor, entry: Entry, path: bytes, name: bytes) -> bool:
        found = make_room(self, entry, path, name)
        (target / "d").symlink_to(victim.parent)
        return found

    monkeypatch.setattr(Extractor, "_make_room", raced)
    with pytest.raises(OSError):
        extract(target, TarMember(name=b"d/", type=tf.DIRECTORY, mode=0o700, uid=5))
    after = victim.parent.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
