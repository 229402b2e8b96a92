"""What survives a power cut is written in this order: the file, its fsync, its name, the fsync of the
directory."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import open_database

from wherry.linux import files, syscalls
from wherry.linux.syncing import Syncing
from wherry.model import digest as digests
from wherry.state.content import Contents
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage.content import ContentStore
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter


class Calls:
    """Notes system calls as they are made: what, and on which file below a directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, below: Path) -> None:
        self.seen: list[str] = []
        self._below = str(below)
        self._patch = monkeypatch
        for module, name in (
            (os, "fsync"),
            (os, "fdatasync"),
            (os, "write"),
            (os, "pwrite"),
            (syscalls, "syncfs"),
        ):
            self._watch(module, name, lambda fd, *_rest: os.readlink(f"/proc/self/fd/{fd}"))
        for name in ("rename", "replace", "link"):
            self._watch(os, name, lambda _old, new, **_rest: str(new))
        self._watch(os, "unlink", lambda path, **_rest: str(path))

    def _watch(self, module: Any, name: str, shown: Callable[..., str]) -> None:
        inner = getattr(module, name)

        def called(*arguments: Any, **keywords: Any) -> Any:
            path = shown(*arguments, **keywords)
            if path.startswith(self._below):
                self.seen.append(f"{name} {os.path.basename(path)}")
            return inner(*arguments, **keywords)

        self._patch.setattr(module, name, called)

    def without_rows(self) -> list[str]:
        """What was done to other files than the database's."""
        return [word for word in self.seen if not word.split()[-1].startswith("db")]

    def note(self, target: Any, name: str, word: str) -> None:
        inner = getattr(target, name)

        def called(*arguments: Any, **keywords: Any) -> Any:
            self.seen.append(word)
            return inner(*arguments, **keywords)

        self._patch.setattr(target, name, called)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    return Calls(monkeypatch, tmp_path)


def test_write_atomic(calls: Calls, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    files.write_atomic(directory / "name", b"data")
    (temporary,) = {word.split()[1] for word in calls.seen if word.startswith("write ")}
    assert temporary != "name"
    assert calls.seen == [f"write {temporary}", f"fsync {temporary}", "rename name", "fsync d"]
    calls.seen.clear()
    files.write_atomic(directory / "other", b"data", durable=False)
    assert [word.split()[0] for word in calls.seen] == ["write", "rename"]


@pytest.mark.parametrize("ref", ["ref", None])
def test_a_blob(calls: Calls, tmp_path: Path, ref: str | None) -> None:
    """Its row comes last: a row without a whole file would be a promise that is not kept."""
    rows = Contents(open_database(tmp_path / "db", MIGRATIONS))
    store = ContentStore(tmp_path, rows)
    calls.note(rows, "insert", "row")
    digest = digests.of(b"data")
    calls.seen.clear()
    with store.ingest(ref) as writer:
        writer.write(b"data")
        name = writer._path.name
        writer.commit(digest)
    name_of_blob = digests.hex_of(digest)
    expected = [f"fsync {name}", f"link {name_of_blob}", "fsync sha256", "row", f"unlink {name}"]
    assert calls.without_rows() == expected


def test_a_blob_where_there_are_no_links(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    rows = Contents(open_database(tmp_path / "db", MIGRATIONS))
    store = ContentStore(tmp_path, rows)
    calls.note(rows, "insert", "row")
    calls.seen.clear()
    digest = store.put(b"data")
    order = [word.split()[0] for word in calls.without_rows()]
    assert order == ["fsync", "rename", "fsync", "row", "unlink"]
    assert store.read(digest, limit=9) == b"data"


@pytest.mark.parametrize("kind", [OverlaySnapshotter, VfsSnapshotter])
def test_a_layer(calls: Calls, tmp_path: Path, kind: Any) -> None:
    rows = Snapshots(open_database(tmp_path / "db", MIGRATIONS), kind.name)
    snapshotter = kind(tmp_path, rows)
    snapshotter.prepare("unpack-0")
    files_of, _ = snapshotter.directories("unpack-0")
    (files_of / "one").write_bytes(b"1")
    calls.note(rows, "commit", "row")
    calls.seen.clear()
    snapshotter.commit("few", "unpack-0")
    synced = calls.seen[: calls.seen.index("row")]
    assert synced == [
        "fsync one",
        "fsync fs",
        f"fsync {files_of.parent.name}",
        f"fsync {kind.name}",
        *synced[4:],
    ]
    snapshotter.prepare("unpack-1")
    files_of, _ = snapshotter.directories("unpack-1")
    for number in range(50):
        (files_of / str(number)).touch()
    calls.seen.clear()
    snapshotter.commit("one", "unpack-1")
    order = [word.split()[0] for word in calls.seen]
    assert order.index("syncfs") < order.index("row")
    snapshotter.prepare("unpack-2")
    calls.seen.clear()
    snapshotter.sync()
    snapshotter.commit("two", "unpack-2", synced=True)
    assert [word for word in calls.seen if word.startswith("syncfs")] == [f"syncfs {kind.name}"]


def test_rows(calls: Calls, tmp_path: Path) -> None:
    """One sync for all commits before it; rows alone need less than what directories go with."""
    db = open_database(tmp_path / "db", ["CREATE TABLE a (x INTEGER);"])
    db.settle()
    calls.seen.clear()
    db.settle()
    db.settle(rows_only=True)
    assert calls.seen == []
    db.execute("INSERT INTO a VALUES (1)")
    with db.transaction() as connection:
        connection.execute("INSERT INTO a VALUES (2)")
    assert not db.is_settled() and not db.is_settled(rows_only=True)
    db.settle(rows_only=True)
    assert calls.seen == ["fdatasync db-wal"]
    assert not db.is_settled() and db.is_settled(rows_only=True)
    db.settle()
    db.settle(rows_only=True)
    assert calls.seen == ["fdatasync db-wal", "fsync db-wal"]
    assert db.is_settled()
    db.close()


def test_who_wants_the_same_shares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync covers those who asked before it began, and nobody who asked later."""
    begun, go = threading.Event(), threading.Event()
    count = 0

    def slow(_fd: int) -> None:
        nonlocal count
        count += 1
        begun.set()
        assert go.wait(30)

    monkeypatch.setattr(syscalls, "syncfs", slow)
    syncing = Syncing(tmp_path)
    threads = [threading.Thread(target=syncing.sync)]
    threads[0].start()
    assert begun.wait(30)
    threads += [threading.Thread(target=syncing.sync) for _ in range(5)]
    for thread in threads[1:]:
        thread.start()
    while syncing._asked < 6:
        threading.Event().wait(0.001)
    go.set()
    for thread in threads:
        thread.join(30)
    assert count == 2


def test_a_small_tree_is_synced_by_itself(calls: Calls, tmp_path: Path) -> None:
    """Each file, then each directory that names it; the rest of the file system is left to the kernel."""
    root = tmp_path / "files"
    (root / "d").mkdir(parents=True)
    (root / "d/b").write_bytes(b"b")
    (root / "a").write_bytes(b"a")
    calls.seen.clear()
    Syncing(tmp_path).sync_tree(root)
    assert sorted(calls.seen[:3]) == ["fsync a", "fsync b", "fsync d"]
    assert calls.seen[3:] == ["fsync files", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("what", ["a link", "a whiteout", "many files"])
def test_other_trees_are_synced_with_the_file_system(calls: Calls, tmp_path: Path, what: str) -> None:
    root = tmp_path / "files"
    root.mkdir()
    if what == "a link":
        (root / "l").symlink_to("a")
    elif what == "a whiteout":
        os.mknod(root / "w", 0o600 | stat.S_IFCHR, 0)
    else:
        for number in range(40):
            (root / str(number)).touch()
    calls.seen.clear()
    Syncing(tmp_path).sync_tree(root)
    assert calls.seen == [f"syncfs {tmp_path.name}"]
