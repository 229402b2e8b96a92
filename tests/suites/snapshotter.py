"""What every snapshotter must do. Run it with a function that makes one below a directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import pytest
from databases import open_database

from wherry.errors import Conflict, NotFound
from wherry.linux.lostfound import LostFound
from wherry.linux.mounts import mount, unmount
from wherry.model.mount import Mount
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.storage.snapshots import Snapshotter, SnapshotUsage


class Make(Protocol):
    def __call__(self, root: Path, db: Database) -> Snapshotter: ...


@contextmanager
def mounted(mounts: list[Mount], where: Path) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    for value in mounts:
        mount(value, where)
    try:
        yield where
    finally:
        unmount(where)


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


class SnapshotterSuite:
    make: ClassVar[Make]

    @pytest.fixture
    def db(self, root: Path) -> Database:
        return open_database(root / "db", MIGRATIONS)

    @pytest.fixture
    def snapshotter(self, root: Path, db: Database) -> Snapshotter:
        return type(self).make(root, db)

    @pytest.fixture
    def at(self, root: Path) -> Path:
        return root / "mounted"

    def layer(self, snapshotter: Snapshotter, name: str, parent: str | None, **files: str) -> None:
        mounts = snapshotter.prepare(f"unpack-{name}", parent)
        with mounted(mounts, snapshotter_root(snapshotter) / "build") as path:
            for file, text in files.items():
                (path / file).write_text(text)
        snapshotter.commit(name, f"unpack-{name}")

    def test_layers_show_through(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="1", b="1")
        self.layer(snapshotter, "two", "one", b="2", c="2")
        with mounted(snapshotter.prepare("c", "two"), at) as path:
            assert {name: (path / name).read_text() for name in names(path)} == {"a": "1", "b": "2", "c": "2"}

    def test_writes_stay_in_their_snapshot(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="1", b="1")
        with mounted(snapshotter.prepare("c1", "one"), at) as path:
            (path / "a").write_text("changed")
            (path / "b").unlink()
            (path / "new").mkdir()
        with mounted(snapshotter.prepare("c2", "one"), at) as path:
            assert (path / "a").read_text() == "1"
            assert names(path) == ["a", "b"]
        with mounted(snapshotter.mounts("c1"), at) as path:
            assert (path / "a").read_text() == "changed"
            assert names(path) == ["a", "new"]

    def test_a_view_cannot_be_written(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="1")
        self.layer(snapshotter, "two", "one", b="1")
        for key, parent, expected in (("v1", "one", ["a"]), ("v2", "two", ["a", "b"]), ("v0", None, [])):
            with mounted(snapshotter.view(key, parent), at) as path:
                assert names(path) == expected
                with pytest.raises(OSError, match="Read-only"):
                    (path / "x").write_text("x")
            snapshotter.remove(key)

    def test_a_deleted_directory_made_again_is_empty(self, snapshotter: Snapshotter, at: Path) -> None:
        with mounted(snapshotter.prepare("unpack-1"), at) as path:
            (path / "d/e").mkdir(parents=True)
        snapshotter.commit("one", "unpack-1")
        with mounted(snapshotter.prepare("unpack-2", "one"), at) as path:
            (path / "d/e").rmdir()
            (path / "d").rmdir()
            (path / "d").mkdir()
        snapshotter.commit("two", "unpack-2")
        with mounted(snapshotter.prepare("c", "two"), at) as path:
            assert names(path / "d") == []

    def test_metadata_survives(self, snapshotter: Snapshotter, at: Path) -> None:
        with mounted(snapshotter.prepare("unpack-1"), at) as path:
            file = path / "f"
            file.write_bytes(b"x" * 5000)
            os.chown(file, 1000, 2000)
            file.chmod(0o4751)
            os.setxattr(file, "user.mark", b"yes")
            os.utime(file, ns=(1, 1_222_333_444_555_666_777))
            (path / "h").hardlink_to(file)
            os.mknod(path / "null", 0o20666, os.makedev(1, 3))
            path.chmod(0o711)
        snapshotter.commit("one", "unpack-1")
        with mounted(snapshotter.prepare("c", "one"), at) as path:
            status = (path / "f").stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 2000, 0o4751)
            assert status.st_mtime_ns == 1_222_333_444_555_666_777
            assert status.st_nlink == 2
            assert os.getxattr(path / "f", "user.mark") == b"yes"
            assert (path / "null").stat().st_rdev == os.makedev(1, 3)
            assert path.stat().st_mode & 0o7777 == 0o711

    def test_keys_are_unique_and_must_exist(self, snapshotter: Snapshotter) -> None:
        self.layer(snapshotter, "one", None, a="1")
        snapshotter.prepare("c", "one")
        with pytest.raises(Conflict):
            snapshotter.prepare("c", "one")
        with pytest.raises(Conflict):
            snapshotter.prepare("one")
        for call in (snapshotter.mounts, snapshotter.stat, snapshotter.usage, snapshotter.remove):
            with pytest.raises(NotFound):
                call("absent")
        with pytest.raises(NotFound):
            snapshotter.prepare("d", "absent")
        with pytest.raises(NotFound):
            snapshotter.prepare("d", "c")
        with pytest.raises(NotFound):
            snapshotter.mounts("one")
        with pytest.raises(NotFound):
            snapshotter.commit("again", "one")
        with pytest.raises(Conflict):
            snapshotter.commit("one", "c")
        assert [info.key for info in snapshotter.walk()] == ["one", "c"]

    def test_parents_stay_until_their_children_go(self, snapshotter: Snapshotter) -> None:
        self.layer(snapshotter, "one", None, a="1")
        snapshotter.prepare("c", "one")
        with pytest.raises(Conflict):
            snapshotter.remove("one")
        snapshotter.remove("c")
        snapshotter.remove("one")
        assert snapshotter.walk() == []
        assert directories(snapshotter) == []

    def test_stat_and_usage(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="x" * 100_000)
        info = snapshotter.stat("one")
        assert (info.key, info.kind, info.parent) == ("one", "committed", None)
        assert snapshotter.usage("one").bytes >= 100_000
        with mounted(snapshotter.prepare("c", "one"), at) as path:
            before = snapshotter.usage("c")
            (path / "big").write_bytes(bytes([1]) * 1_000_000)
            os.sync()
            after = snapshotter.usage("c")
        assert after.bytes - before.bytes >= 1_000_000
        assert after.inodes - before.inodes == 1
        assert (snapshotter.stat("c").kind, snapshotter.stat("c").parent) == ("active", "one")

    def test_usage_can_be_given(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("unpack-1")
        snapshotter.commit("one", "unpack-1", usage=SnapshotUsage(17, 3))
        assert snapshotter.usage("one") == SnapshotUsage(17, 3)

    def test_a_parent_given_at_commit(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="1")
        with mounted(snapshotter.prepare("unpack-2"), at) as path:
            (path / "b").write_text("2")
        if not snapshotter.rebase:
            with pytest.raises(Conflict):
                snapshotter.commit("two", "unpack-2", parent="one")
            return
        snapshotter.commit("two", "unpack-2", parent="one")
        snapshotter.prepare("unpack-young")
        snapshotter.prepare("unpack-old")
        snapshotter.commit("young", "unpack-old", parent="two")
        snapshotter.commit("younger", "unpack-young", parent="young")
        assert [info.key for info in snapshotter.walk()] == ["one", "two", "young", "younger"]
        with mounted(snapshotter.prepare("c", "two"), at) as path:
            assert names(path) == ["a", "b"]

    def test_start_sweeps_what_was_not_finished(
        self, snapshotter: Snapshotter, root: Path, db: Database
    ) -> None:
        self.layer(snapshotter, "one", None, a="1")
        snapshotter.prepare("c", "one")
        snapshotter.prepare("unpack-x", "one")
        kept = directories(snapshotter)
        (snapshotter_root(snapshotter) / "stray").mkdir()
        (snapshotter_root(snapshotter) / ".going-zz" / "fs").mkdir(parents=True)
        again = type(self).make(root, db)
        assert [info.key for info in again.walk()] == ["one", "c"]
        assert len(directories(again)) == len(kept) - 1
        assert again.cleanup() == 0

    def test_marked_until_settled(self, snapshotter: Snapshotter, root: Path, db: Database) -> None:
        self.layer(snapshotter, "one", None, a="1")
        snapshotter.prepare("c", "one")
        assert not snapshotter.is_settled("c")
        snapshotter.settle("c")
        assert snapshotter.is_settled("c") and snapshotter.is_settled("one")
        snapshotter.unsettle("c")
        assert not snapshotter.is_settled("c")
        with pytest.raises(NotFound):
            snapshotter.is_settled("d")

    def test_what_lost_its_row_is_taken_up(self, snapshotter: Snapshotter, root: Path, at: Path) -> None:
        """Layers and containers' files come back by what is written beside them; half ones go."""
        self.layer(snapshotter, "one", None, a="1")
        self.layer(snapshotter, "two", "one", b="2")
        self.layer(snapshotter, "build-1", "one", d="2")
        with mounted(snapshotter.prepare("c", "two"), at) as path:
            (path / "db").write_text("orders")
        snapshotter.settle("c")
        snapshotter.prepare("half", "two")
        snapshotter.view("v", "two")
        stray = snapshotter_root(snapshotter) / "stray"
        (stray / "fs").mkdir(parents=True)
        (stray / "fs" / "file").write_text("whose?")
        other = open_database(root / "other.db", MIGRATIONS)
        again = type(self).make(root, other)
        assert [info.key for info in again.walk()] == ["one", "two", "c"]
        assert again.stat("two").parent == "one"
        with mounted(again.mounts("c"), at) as path:
            assert names(path) == ["a", "b", "db"]
        assert again.problems() == {}
        assert again.usage("one") == snapshotter.usage("one")
        (lost,) = LostFound(root).all()
        assert (lost.kind, lost.name) == ("layer", "stray")
        again.prepare("d", "two")
        assert len(set(directories(again))) == 4

    def test_layers_without_their_parents_are_set_aside(self, snapshotter: Snapshotter, root: Path) -> None:
        self.layer(snapshotter, "one", None, a="1")
        self.layer(snapshotter, "two", "one", b="2")
        snapshotter.prepare("c", "two")
        snapshotter.settle("c")
        self.layer(snapshotter, "damaged", None, e="2")
        (snapshotter.directories("damaged")[0] / "e").unlink()
        shutil.rmtree(snapshotter.directories("one")[0].parent)
        again = type(self).make(root, open_database(root / "other.db", MIGRATIONS))
        assert again.walk() == []
        assert {one.name for one in LostFound(root).all()} == {"two", "c", "damaged"}

    def test_an_older_database_gives_out_no_number_twice(
        self, snapshotter: Snapshotter, root: Path, db: Database
    ) -> None:
        db.close()
        old = (root / "db").read_bytes()
        db = open_database(root / "db", MIGRATIONS)
        newer = type(self).make(root, db)
        self.layer(newer, "one", None, a="1")
        newer.prepare("c", "one")
        newer.settle("c")
        db.close()
        (root / "db").write_bytes(old)
        again = type(self).make(root, open_database(root / "db", MIGRATIONS))
        assert [info.key for info in again.walk()] == ["one", "c"]
        again.prepare("d", "one")
        assert len(set(directories(again))) == 3

    def test_files_that_were_lost_come_back(self, snapshotter: Snapshotter, at: Path) -> None:
        self.layer(snapshotter, "one", None, a="1")
        self.layer(snapshotter, "two", "one", b="2")
        snapshotter.prepare("c", "two")
        assert snapshotter.has_files("two", parents=True) and not snapshotter.has_files("three")
        shutil.rmtree(snapshotter.directories("one")[0].parent)
        assert snapshotter.has_files("two") and not snapshotter.has_files("two", parents=True)
        with mounted(snapshotter.prepare("unpack-again"), at) as path:
            (path / "a").write_text("1")
        with pytest.raises(Conflict):
            snapshotter.commit("one", "unpack-again")
        assert snapshotter.replace_lost("one", "unpack-again")
        assert not snapshotter.replace_lost("one", "two")
        assert snapshotter.has_files("two", parents=True)
        assert snapshotter.problems() == {}
        assert [info.key for info in snapshotter.walk()] == ["one", "two", "c"]
        with mounted(snapshotter.mounts("c"), at) as path:
            assert names(path) == ["a", "b"]

    def test_set_aside(self, snapshotter: Snapshotter, root: Path, at: Path) -> None:
        with mounted(snapshotter.prepare("c"), at) as path:
            (path / "db").write_text("orders")
        assert "set the layer c aside" in snapshotter.set_aside("c", "because")
        assert snapshotter.walk() == []
        (lost,) = LostFound(root).all()
        assert (lost.path / "fs" / "db").read_text() == "orders"

    def test_collect_takes_what_nothing_needs(self, snapshotter: Snapshotter) -> None:
        self.layer(snapshotter, "one", None, a="1")
        self.layer(snapshotter, "two", "one", b="1")
        self.layer(snapshotter, "three", "two", c="1")
        snapshotter.prepare("c", "two")
        assert snapshotter.collect()[0] == 1
        assert [info.key for info in snapshotter.walk()] == ["one", "two", "c"]
        snapshotter.remove("c")
        count, freed = snapshotter.collect()
        assert count == 2
        assert freed > 0
        assert directories(snapshotter) == []

    def test_files_that_went_or_came_are_a_problem(self, snapshotter: Snapshotter, at: Path) -> None:
        with mounted(snapshotter.prepare("p"), at) as path:
            (path / "f").write_text("1")
        snapshotter.commit("good", "p")
        with mounted(snapshotter.prepare("q", "good"), at) as path:
            (path / "g").write_text("1")
        snapshotter.commit("bad", "q")
        assert snapshotter.problems() == {}
        (snapshotter.directories("bad")[0] / "g").unlink()
        assert list(snapshotter.problems()) == ["bad"]

    def test_many_layers(self, snapshotter: Snapshotter, at: Path) -> None:
        parent = None
        for number in range(self.many):
            self.layer(snapshotter, f"l{number}", parent, **{f"f{number}": str(number)})
            parent = f"l{number}"
        with mounted(snapshotter.prepare("c", parent), at) as path:
            assert len(names(path)) == self.many
            (path / "f0").unlink()
            assert len(names(path)) == self.many - 1

    many: ClassVar[int] = 20


def snapshotter_root(snapshotter: Snapshotter) -> Path:
    return snapshotter.root  # type: ignore[attr-defined,no-any-return]


def directories(snapshotter: Snapshotter) -> list[str]:
    return [name for name in names(snapshotter_root(snapshotter)) if name != "build"]
