"""A layer that is described while its files are made durable is the one that is written afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from databases import open_database
from patience import until

from wherry.engine.builds.layers import EarlyLayer
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage import diff
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.snapshots import UNPACK_PREFIX, Snapshotter

pytestmark = pytest.mark.kernel

KEY = f"{UNPACK_PREFIX}build-x"


@pytest.fixture
def snapshotter(tmp_path: Path) -> Snapshotter:
    root = tmp_path / "snapshots"
    root.mkdir()
    made = OverlaySnapshotter(root, Snapshots(open_database(tmp_path / "db", MIGRATIONS), "overlay"))
    made.prepare(KEY, None)
    files = made.directories(KEY)[0]
    for number in range(50):
        (files / f"d{number}").mkdir()
        (files / f"d{number}/file").write_text(f"{number}" * number)
    return made


def test_it_is_what_is_written_afterwards(snapshotter: Snapshotter) -> None:
    early = EarlyLayer(snapshotter, KEY)
    snapshotter.commit("build-x", KEY)
    written = diff.write_layer(snapshotter, "build-x", diff.Nowhere())
    row = early.result()
    assert row is not None
    assert (row.digest, row.diff_id, row.size) == (written.diff_id, written.diff_id, written.size)


def test_a_new_name_meanwhile_changes_nothing(
    snapshotter: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = diff.write_layer(snapshotter, KEY, diff.Nowhere()).diff_id
    began, go_on = threading.Event(), threading.Event()
    original = diff.trees.walk

    def walk(root: Path) -> object:
        began.set()
        go_on.wait()
        return original(root)

    monkeypatch.setattr(diff.trees, "walk", walk)
    early = EarlyLayer(snapshotter, KEY)
    began.wait()
    monkeypatch.undo()
    snapshotter.commit("build-x", KEY)
    snapshotter.rename("build-x", "sha256:" + "1" * 64)
    go_on.set()
    row = early.result()
    assert row is not None and row.diff_id == expected


def test_one_that_nobody_needs_ends(snapshotter: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted = 0
    began, go_on = threading.Event(), threading.Event()
    original = diff._Writer._emit

    def emit(self: diff._Writer, data: bytes) -> None:
        nonlocal emitted
        emitted += 1
        began.set()
        go_on.wait()
        original(self, data)

    monkeypatch.setattr(diff._Writer, "_emit", emit)
    early = EarlyLayer(snapshotter, KEY)
    began.wait()
    early.drop()
    go_on.set()
    assert early.result() is None
    assert emitted == 1


def test_a_snapshot_that_is_gone_gives_none(snapshotter: Snapshotter) -> None:
    snapshotter.remove(KEY)
    early = EarlyLayer(snapshotter, KEY)
    until(early._work.done)
    assert early.result() is None
