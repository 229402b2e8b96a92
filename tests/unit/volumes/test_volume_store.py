from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wherry.linux.lostfound import LostFound
from wherry.state import schema
from wherry.state.volumes import Volumes
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import ANONYMOUS_LABEL


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", Volumes(open_database(":memory:", schema.MIGRATIONS)))


def path(store: VolumeStore, name: str) -> Path:
    found = store.get(name).mountpoint
    assert found is not None
    return found


def test_create_returns_the_same_volume_again(store: VolumeStore, tmp_path: Path) -> None:
    first = store.create("data", labels={"a": "b"})
    (path(store, "data") / "file").write_text("x")
    again = store.create("data", labels={"other": "label"})
    assert again == first == store.get("data")
    assert path(store, "data") == tmp_path / "volumes" / "data" / "_data"
    assert store.usage("data") == 1
    assert path(store, "data").stat().st_mode & 0o777 == 0o755


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
    with pytest.raises(InvalidArgument, match='create data: missing required option: "type"'):
        store.create("data", options={"device": "tmpfs"})
    with pytest.raises(InvalidArgument, match='create data: invalid option: "colour"'):
        store.create("data", options={"colour": "red"})
    with pytest.raises(Unavailable, match="no quota support"):
        store.create("data", options={"size": "1g"})
    assert store.list() == []


def test_unknown_driver(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match='plugin "flocker" not found'):
        store.create("data", driver="flocker")


def test_missing(store: VolumeStore) -> None:
    for call in (store.get, store.by_id, store.usage, store.remove):
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
    assert [user.container_id for user in store.references("data")] == ["c1", "c2"]
    assert all(user.since > 0 for user in store.references("data"))
    store.release("data", "c1")
    store.release("data", "c1")
    store.release("data", "c2")
    store.remove("data")
    assert store.list() == []


def test_remove_leaves_nothing(store: VolumeStore, tmp_path: Path) -> None:
    store.create("data")
    (path(store, "data") / "d").mkdir()
    (path(store, "data") / "d" / "link").symlink_to(tmp_path)
    store.remove("data")
    assert list((tmp_path / "volumes").iterdir()) == []
    assert tmp_path.is_dir()


def test_prune(store: VolumeStore) -> None:
    anonymous, used = store.create(None), store.create(None)
    store.create("named")
    (path(store, anonymous.name) / "f").write_bytes(b"x" * 7)
    store.acquire(used.name, "c")
    assert [(p.name, p.size) for p in store.prune()] == [(anonymous.name, 7)]
    assert [p.name for p in store.prune(all_volumes=True, wanted=lambda v: v.name != "named")] == []
    assert [p.name for p in store.prune(all_volumes=True)] == ["named"]
    assert [v.name for v in store.list()] == [used.name]


def test_sweep(store: VolumeStore, tmp_path: Path) -> None:
    root = tmp_path / "volumes"
    store.create("kept")
    store.create("lost")
    (root / "half" / "_data").mkdir(parents=True)
    (root / "half" / ".unsettled").touch()
    (root / ".removed-0123").mkdir()
    shutil.rmtree(root / "lost")
    (root / "kept" / ".filling").touch()
    (root / "kept" / "_data" / "half").touch()
    lines = store.sweep()
    assert len(lines) == 3
    assert list(path(store, "kept").iterdir()) == []
    assert sorted(e.name for e in root.iterdir()) == ["kept", "lost"]
    assert path(store, "lost").is_dir()
    assert store.sweep() == ()


def test_what_has_no_row_is_taken_up(tmp_path: Path) -> None:
    """Nothing that somebody may have put there is removed because no row knows it."""

    def opened() -> VolumeStore:
        return VolumeStore(tmp_path / "volumes", Volumes(open_database(":memory:", schema.MIGRATIONS)))

    before = opened()
    before.create("shop", labels={"a": "b"}, options={"type": "none", "o": "bind", "device": str(tmp_path)})
    before.rename("shop", "store")
    first = before.create(None)
    before.create("other")
    (path(before, "other") / "db").write_text("orders")
    root = tmp_path / "volumes"
    (root / "old" / "_data").mkdir(parents=True)
    (root / "strange").mkdir()
    (root / "strange" / "file").write_text("whose?")
    (root / "empty").mkdir()
    after = opened()
    after.create("new")
    lines = list(after.take_up())
    assert after.sweep() == ()
    assert [v.name for v in after.list()] == sorted([first.name, "new", "old", "other", "store"])
    assert (path(after, "other") / "db").read_text() == "orders"
    assert after.get("store") == before.get("store")
    assert after.get(first.name) == first
    assert sum("took up volume" in line for line in lines) == 4
    (lost,) = LostFound(tmp_path).all()
    assert (lost.kind, lost.name, lost.was) == ("volume", "strange", "volumes/strange")
    assert (lost.path / "file").read_text() == "whose?"
    assert not (root / "empty").exists()
    assert list(after.take_up()) == []
    taken = after.take_back(lost.path, "found", {})
    LostFound(tmp_path).forget(lost)
    assert taken.mountpoint is not None
    assert (taken.mountpoint / "file").read_text() == "whose?"
    assert LostFound(tmp_path).all() == []


def test_a_name_that_is_taken_again(tmp_path: Path) -> None:
    before = VolumeStore(tmp_path / "volumes", Volumes(open_database(":memory:", schema.MIGRATIONS)))
    before.create("data")
    before.rename("data", "shop")
    after = VolumeStore(tmp_path / "volumes", Volumes(open_database(":memory:", schema.MIGRATIONS)))
    after.create("shop")
    assert len(list(after.take_up())) == 1
    names = [v.name for v in after.list()]
    assert names[0] == "shop" and names[1].startswith("shop.") and len(names) == 2


def test_a_directory_that_came_at_run_time_is_not_written_over(store: VolumeStore, tmp_path: Path) -> None:
    (tmp_path / "volumes" / "data" / "_data").mkdir(parents=True)
    (tmp_path / "volumes" / "data" / "_data" / "file").write_text("mine")
    store.create("data")
    assert list(path(store, "data").iterdir()) == []
    (lost,) = LostFound(tmp_path).all()
    assert (lost.path / "_data" / "file").read_text() == "mine"


def test_marks_while_rows_are_written(store: VolumeStore, tmp_path: Path) -> None:
    """A volume is marked until its row is there, and from before the row goes."""
    seen: list[tuple[str, bool]] = []
    mark = tmp_path / "volumes" / "data" / ".unsettled"
    rows = store._rows
    for method in ("insert", "delete_unused"):

        def watched(*arguments: object, what: str = method, inner: object = getattr(rows, method)) -> object:
            seen.append((what, mark.exists()))
            return inner(*arguments)  # type: ignore[operator]

        setattr(rows, method, watched)
    store.create("data")
    assert not mark.exists()
    store.acquire("data", "c")
    with pytest.raises(Conflict):
        store.remove("data")
    assert not mark.exists()
    store.release("data", "c")
    store.remove("data")
    assert seen == [("insert", True), ("delete_unused", True), ("delete_unused", True)]


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
            assert path(store, name).is_dir()


def test_a_volume_keeps_its_identity_when_it_is_renamed(store: VolumeStore) -> None:
    first = store.create("data", labels={"a": "b"})
    (path(store, "data") / "file").write_text("x")
    store.acquire(first.id, "c")
    renamed = store.rename("data", "archive")
    assert (renamed.id, renamed.name, renamed.labels) == (first.id, "archive", {"a": "b"})
    assert (path(store, "archive") / "file").read_text() == "x"
    assert store.name_of(first.id) == "archive"
    with pytest.raises(NotFound):
        store.get("data")
    # The old name is free, and what is made under it is another volume.
    second = store.create("data")
    assert second.id != first.id and list(path(store, "data").iterdir()) == []
    with pytest.raises(Conflict, match="the name archive is in use"):
        store.rename("data", "archive")
    with pytest.raises(NotFound):
        store.rename("nothing", "else")
    with pytest.raises(InvalidArgument):
        store.rename("data", "../x")
    assert store.rename("data", "data").id == second.id
    with pytest.raises(Conflict, match=r"remove archive: volume is in use - \[c\]"):
        store.remove("archive")
    store.remove("data")
    assert (path(store, "archive") / "file").exists()
    assert store.sweep() == ()


def test_rows_from_before_there_were_ids(tmp_path: Path) -> None:
    old = open_database(tmp_path / "db", schema.MIGRATIONS[:2])
    old.execute("INSERT INTO volumes VALUES ('data', 'local', 5, '{}', '{\"a\":\"b\"}')")
    old.execute("INSERT INTO volume_users VALUES ('data', 'c')")
    old.close()
    store = VolumeStore(tmp_path / "volumes", Volumes(open_database(tmp_path / "db", schema.MIGRATIONS)))
    volume = store.get("data")
    assert (volume.id, volume.created, volume.labels) == ("data", 5, {"a": "b"})
    assert [(u.container_id, u.since) for u in store.references("data")] == [("c", 0)]
    with pytest.raises(Conflict):
        store.remove("data")
