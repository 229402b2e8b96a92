"""The snapshotter suite on every driver, on the disk's file system and on tmpfs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from databases import open_database
from snapshotter import SnapshotterSuite, mounted, names

from wherry.linux import overlay as overlay_mounts
from wherry.state.database import Database
from wherry.state.snapshots import Snapshots
from wherry.storage.drivers.overlay import OverlaySnapshotter, probe
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.snapshots import Snapshotter

pytestmark = pytest.mark.kernel


def _overlay(root: Path, db: Database) -> Snapshotter:
    return OverlaySnapshotter(root, Snapshots(db, "overlay"))


def _vfs(root: Path, db: Database) -> Snapshotter:
    return VfsSnapshotter(root, Snapshots(db, "vfs"))


class OnDisk:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path


class OnTmpfs:
    @pytest.fixture
    def root(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wherry-test-") as directory:
            yield Path(directory)


class TestOverlay(OnDisk, SnapshotterSuite):
    make = staticmethod(_overlay)
    many: ClassVar[int] = 200

    @pytest.mark.parametrize("count", [150, 400])
    def test_mounts_beyond_one_page_of_data(
        self, snapshotter: Snapshotter, at: Path, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(count):
            (mount,) = snapshotter.prepare(f"unpack-{number}")
            Path(mount.source, f"f{number}").write_text("")
            snapshotter.commit(f"l{number}", f"unpack-{number}", parent=f"l{number - 1}" if number else None)
        mounts = snapshotter.prepare("c", f"l{count - 1}")
        assert len(",".join(mounts[0].options)) > 4096
        with mounted(mounts, at) as path:
            assert len(names(path)) == count
        if count > 200:
            return

        def old_kernel(*arguments: object) -> None:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(overlay_mounts, "_mount_stepwise", old_kernel)
        with mounted(mounts, at) as path:
            assert len(names(path)) == count


class TestOverlayOnTmpfs(OnTmpfs, SnapshotterSuite):
    make = staticmethod(_overlay)


class TestVfs(OnDisk, SnapshotterSuite):
    make = staticmethod(_vfs)


class TestVfsOnTmpfs(OnTmpfs, SnapshotterSuite):
    make = staticmethod(_vfs)


def test_the_probe_says_what_is_missing(tmp_path: Path) -> None:
    assert probe(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    awkward = tmp_path / "with:colon"
    awkward.mkdir()
    assert "cannot carry" in (probe(awkward) or "")


def test_the_probe_refuses_an_overlay_below_an_overlay(tmp_path: Path) -> None:
    snapshotter = _overlay(tmp_path, _database(tmp_path))
    snapshotter.prepare("unpack-1")
    snapshotter.commit("one", "unpack-1")
    with mounted(snapshotter.prepare("c", "one"), tmp_path / "mounted") as path:
        assert probe(path) is not None
        assert list(path.iterdir()) == []


def _database(root: Path) -> Database:
    from wherry.state.schema import MIGRATIONS

    return open_database(root / "db", MIGRATIONS)
