from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wherry.errors import Conflict, InvalidArgument, NotFound, NotImplemented_
from wherry.state import schema
from wherry.state.database import Database
from wherry.state.volumes import Volumes
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import ANONYMOUS_LABEL


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", Volumes(Database(":memory:", schema.MIGRATIONS)))


def test_create_returns_the_same_volume_again(store: VolumeStore, tmp_path: Path) -> None:
    first = store.create("data", labels={"a": "b"})
    (first.mountpoint / "file").write_text("x")
    again = store.create("data", labels={"other": "label"})
    assert again == first == store.get("data")
    assert first.mountpoint == tmp_path / "volumes" / "data" / "_data" == store.path("data")
    assert store.usage("data") == 1
    assert first.mountpoint.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["", None])
def test_anonymous(store: VolumeStore, name: str | None) -> None:
    volume = store.create(name, labels={"mine": "1"})
    assert len(volume.name) == 64
    assert int(volume.name, 16) >= 0
    assert volume.labels == {"mine": "1", ANONYMOUS_LABEL: ""}
    assert store.get(volume.name).anonymous


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a b", "a\n", "é" * 3, "a" * 256, "/abs"])
def test_bad_names(store: VolumeStore, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="includes invalid characters for a local volume name"):
        store.create(name)
    assert list((tmp_path / "volumes").iterdir()) == []


def test_short_name(store: VolumeStore) -> None:
    with pytest.raises(InvalidArgument, match="create x: volume name is too short"):
        store.create("x")


def test_options_are_refused_by_name(store: VolumeStore) -> None:
    with pytest.raises(NotImplemented_, match='option "device"'):
        store.create("data", options={"device": "tmpfs"})
    with pytest.raises(InvalidArgument, match='invalid option: "colour"'):
        store.create("data", options={"colour": "red"})
    assert store.list() == []


def test_unknown_driver(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match='plugin "flocker" not found'):
        store.create("data", driver="flocker")


def test_missing(store: VolumeStore) -> None:
    for call in (store.get, store.path, store.usage, store.remove):
        with pytest.raises(NotFound, match="get data: no such volume"):
            call("data")
    with pytest.raises(NotFound):
        store.acquire("data", "c1")
    store.remove("data", force=True)


def test_volume_in_use_stays(store: VolumeStore) -> None:
    store.create("data")
    store.acquire("data", "c2")
    store.acquire("data", "c1")
    store.acquire("data", "c1")
    for force in (False, True):
        with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
            store.remove("data", force=force)
    assert store.references("data") == ("c1", "c2")
    assert store.used_by("c1") == ("data",)
    store.release("data", "c1")
    store.release("data", "c1")
    store.release("data", "c2")
    store.remove("data")
    assert store.list() == []


def test_remove_leaves_nothing(store: VolumeStore, tmp_path: Path) -> None:
    volume = store.create("data")
    (volume.mountpoint / "d").mkdir()
    (volume.mountpoint / "d" / "link").symlink_to(tmp_path)
    store.remove("data")
    assert list((tmp_path / "volumes").iterdir()) == []
    assert tmp_path.is_dir()


def test_prune(store: VolumeStore) -> None:
    anonymous, used = store.create(None), store.create(None)
    store.create("named")
    (anonymous.mountpoint / "f").write_bytes(b"x" * 7)
    store.acquire(used.name, "c")
    assert [(p.name, p.size) for p in store.prune()] == [(anonymous.name, 7)]
    assert [p.name for p in store.prune(all_volumes=True, wanted=lambda v: v.name != "named")] == []
    assert [p.name for p in store.prune(all_volumes=True)] == ["named"]
    assert [v.name for v in store.list()] == [used.name]


def test_sweep(store: VolumeStore, tmp_path: Path) -> None:
    root = tmp_path / "volumes"
    store.create("kept")
    store.create("lost")
    (root / "orphan" / "_data").mkdir(parents=True)
    (root / ".removed-0123").mkdir()
    (root / "lost" / "_data").rmdir()
    (root / "lost").rmdir()
    (root / "kept" / ".filling").touch()
    (root / "kept" / "_data" / "half").touch()
    lines = store.sweep()
    assert len(lines) == 3
    assert list(store.path("kept").iterdir()) == []
    assert sorted(e.name for e in root.iterdir()) == ["kept", "lost"]
    assert store.path("lost").is_dir()
    assert store.sweep() == ()


def test_use_and_removal_at_once(store: VolumeStore) -> None:
    """Whoever comes first wins; a volume that is acquired is never gone."""
    for n in range(30):
        name = f"volume{n}"
        store.create(name)

        def acquire(name: str = name) -> bool:
            try:
                store.acquire(name, "c")
            except NotFound:
                return False
            return True

        def remove(name: str = name) -> bool:
            try:
                store.remove(name)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            acquired, removed = pool.submit(acquire), pool.submit(remove)
            assert acquired.result() != removed.result()
        if acquired.result():
            assert store.path(name).is_dir()
