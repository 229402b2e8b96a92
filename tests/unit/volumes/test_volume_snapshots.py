"""Snapshots, restores and clones of volumes, on real directories."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wherry.linux import copy
from wherry.linux.lostfound import LostFound
from wherry.state import schema
from wherry.state.volume_snapshots import SCHEDULE, ScheduleRow, VolumeSnapshots
from wherry.state.volumes import Volumes
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume
from wherry.volumes.versions import VolumeVersions


class Room:
    def __init__(self, root: Path) -> None:
        db = open_database(":memory:", schema.MIGRATIONS)
        self.root = root / "volumes"
        self.store = VolumeStore(self.root, Volumes(db))
        self.rows = VolumeSnapshots(db)
        self.versions = VolumeVersions(self.store, self.rows)

    def volume(self, name: str = "data", **files: str) -> Volume:
        volume = self.store.create(name)
        for file, text in files.items():
            self.write(volume, file, text)
        return volume

    @staticmethod
    def path(volume: Volume) -> Path:
        assert volume.mountpoint is not None
        return volume.mountpoint

    def write(self, volume: Volume, file: str, text: str) -> None:
        (self.path(volume) / file).write_text(text)

    def read(self, volume: Volume) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.path(volume).iterdir()}

    def names(self, volume: Volume) -> list[str]:
        return [row.name for row in self.versions.of(volume)]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_a_snapshot_stays_as_it_was(room: Room) -> None:
    volume = room.volume(a="1")
    os.chmod(room.path(volume), 0o1777)
    row = room.versions.create(volume, "first", frozen=True)
    assert (row.name, row.origin, row.frozen) == ("first", "manual", True)
    room.write(volume, "a", "2")
    kept = room.versions.path(volume, "first")
    assert (kept / "a").read_text() == "1"
    assert kept.stat().st_mode & 0o7777 == 0o1777
    with pytest.raises(Conflict, match="has a snapshot first already"):
        room.versions.create(volume, "first")
    with pytest.raises(InvalidArgument, match="invalid snapshot name"):
        room.versions.create(volume, "../x")
    by_time = room.versions.create(volume, "")
    assert by_time.name.startswith("20") and room.names(volume) == ["first", by_time.name]
    room.versions.remove(volume, "first")
    assert room.names(volume) == [by_time.name] and not kept.exists()
    for call in (room.versions.remove, room.versions.path, room.versions.restore):
        with pytest.raises(NotFound, match="no such snapshot of volume data: first"):
            call(volume, "first")


def test_a_restore_keeps_what_it_replaces(room: Room) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "first")
    room.write(volume, "a", "2")
    room.write(volume, "b", "new")
    kept = room.versions.restore(volume, "first")
    assert room.read(volume) == {"a": "1"}
    assert kept.name.startswith("before-first-") and kept.origin == "restore"
    # And back again; the snapshot that was restored is still there as it was.
    room.versions.restore(volume, kept.name)
    assert room.read(volume) == {"a": "2", "b": "new"}
    room.versions.restore(volume, "first")
    assert room.read(volume) == {"a": "1"}


def test_nothing_is_restored_under_a_running_container(room: Room) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "first")
    room.write(volume, "a", "2")
    room.store.mounts.take(volume.id, "c /m")
    with pytest.raises(Conflict, match="a running container has it open"):
        room.versions.restore(volume, "first")
    assert (room.read(volume), room.names(volume)) == ({"a": "2"}, ["first"])
    room.store.mounts.give_back(volume.id, "c /m")
    room.versions.restore(volume, "first")


def test_clones(room: Room) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "first")
    room.write(volume, "a", "2")
    now, before = room.versions.clone(volume, "now"), room.versions.clone(volume, "before", snapshot="first")
    assert (room.read(now), room.read(before)) == ({"a": "2"}, {"a": "1"})
    room.write(now, "a", "3")
    assert room.read(volume) == {"a": "2"}
    with pytest.raises(Conflict, match="volume name must be unique"):
        room.versions.clone(volume, "now")
    with pytest.raises(InvalidArgument):
        room.versions.clone(volume, "../x")
    with pytest.raises(NotFound):
        room.versions.clone(volume, "other", snapshot="none")
    assert sorted(p.name for p in room.root.iterdir()) == ["before", "data", "now"]


def test_a_name_taken_while_a_clone_is_made(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = room.volume(a="1")
    real = copy.copy_content

    def slow(source: int, target: int, *, moving: bool = False) -> None:
        real(source, target, moving=moving)
        room.store.create("new")

    monkeypatch.setattr(copy, "copy_content", slow)
    with pytest.raises(Conflict):
        room.versions.clone(volume, "new")
    assert room.read(room.store.get("new")) == {}
    assert len(list(room.root.iterdir())) == 2


def test_a_full_disk_leaves_nothing_half_made(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "first")

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(copy, "copy_bytes", full)
    for call in (
        lambda: room.versions.create(volume, "second"),
        lambda: room.versions.restore(volume, "first"),
        lambda: room.versions.clone(volume, "new"),
    ):
        with pytest.raises(Unavailable, match="no space left on device"):
            call()
    assert (room.read(volume), room.names(volume)) == ({"a": "1"}, ["first"])
    assert sorted(p.name for p in room.root.iterdir()) == ["data"]
    assert len(list((room.root / "data" / "snapshots").iterdir())) == 1


def test_sweep(room: Room) -> None:
    volume = room.volume(a="1")
    row = room.versions.create(volume, "first")
    snapshots = room.root / "data" / "snapshots"
    (snapshots / ".making-x" / "_data").mkdir(parents=True)
    (snapshots / "half").mkdir()
    (snapshots / "half" / ".unsettled").touch()
    (snapshots / ".going-y" / "_data").mkdir(parents=True)
    assert len(room.versions.sweep()) == 3
    assert [p.name for p in snapshots.iterdir()] == [row.id]
    assert room.versions.sweep() == []


def test_snapshots_without_rows_are_taken_up(tmp_path: Path) -> None:
    """Their rows were lost with a database."""
    before = Room(tmp_path)
    volume = before.volume(a="1")
    row = before.versions.create(volume, "first", frozen=True)
    other = before.versions.create(volume, "second", origin=SCHEDULE)
    snapshots = before.root / "data" / "snapshots"
    (snapshots / "strange").mkdir()
    (snapshots / other.id / "about").unlink()
    after = Room(tmp_path)
    list(after.store.take_up())
    assert len(after.versions.sweep()) == 3
    found = {r.id: r for r in after.versions.of(after.store.get("data"))}
    assert found[row.id] == row
    assert found[other.id].name == f"found-{other.id}"
    assert (after.versions.path(volume, "first") / "a").read_text() == "1"
    assert [(one.kind, one.name) for one in LostFound(tmp_path).all()] == [
        ("volume snapshot", "data:strange")
    ]
    assert after.versions.sweep() == []


def test_everything_goes_with_the_volume(room: Room) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "first")
    assert room.rows.schedule(ScheduleRow(volume.id, 60, 3, False, 1))
    room.store.remove("data")
    assert (room.rows.ids(), room.rows.schedules()) == (set(), [])
    assert list(room.root.iterdir()) == []
    assert not room.rows.schedule(ScheduleRow(volume.id, 60, 3, False, 1))


def test_retention_looks_at_a_schedules_own(room: Room) -> None:
    volume = room.volume(a="1")
    room.versions.create(volume, "mine")
    made = [room.versions.create(volume, f"s{n}", origin=SCHEDULE).name for n in range(4)]
    assert room.versions.forget_old(volume, 2) == made[:2]
    assert room.names(volume) == ["mine", *made[2:]]
    assert room.versions.forget_old(volume, 2) == []


def test_files_that_go_while_they_are_copied(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live volume: what is removed is left out, what is replaced is there in its new form."""
    volume = room.volume(gone="1", replaced="old", stays="3")
    place, real = room.path(volume), copy._copy_file

    def busy(job: object, source: int, target: int, name: str) -> None:
        if name == "gone":
            (place / "gone").unlink(missing_ok=True)
        if name == "replaced" and (place / "replaced").read_text() == "old":
            (place / "next").write_text("new")
            real(job, source, target, name)  # type: ignore[arg-type]
            (place / "next").rename(place / "replaced")
            raise OSError(errno.EAGAIN, "it changed while it was copied")
        real(job, source, target, name)  # type: ignore[arg-type]

    monkeypatch.setattr(copy, "_copy_file", busy)
    room.versions.create(volume, "first")
    kept = room.versions.path(volume, "first")
    assert {p.name: p.read_text() for p in kept.iterdir()} == {"replaced": "new", "stays": "3"}
