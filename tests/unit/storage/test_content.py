"""Blobs: verified, resumable, whole or not there."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wherry.linux import syscalls
from wherry.linux.lostfound import LostFound
from wherry.model import digest as digests
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage.content import ContentStore, Writer
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path / "db", MIGRATIONS)


@pytest.fixture
def store(tmp_path: Path, db: Database) -> ContentStore:
    return ContentStore(tmp_path, Contents(db))


def ingests(tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "content/ingest")


def test_put_and_read(store: ContentStore) -> None:
    digest = store.put(b"hello", "text/plain")
    assert digest == digests.of(b"hello")
    assert store.has(digest)
    assert store.size(digest) == 5
    assert store.read(digest, limit=5) == b"hello"
    assert store.path(digest).read_bytes() == b"hello"
    assert [row.media_type for row in store.walk()] == ["text/plain"]
    assert store.put(b"hello") == digest
    with pytest.raises(InvalidArgument):
        store.read(digest, limit=4)


def test_missing_content(store: ContentStore) -> None:
    absent = digests.of(b"absent")
    assert not store.has(absent)
    for call in (store.size, store.open, store.delete):
        with pytest.raises(NotFound):
            call(absent)


@pytest.mark.parametrize("wrong", [{"expected_digest": digests.of(b"x")}, {"expected_size": 4}])
def test_what_fails_verification_is_thrown_away(
    store: ContentStore, tmp_path: Path, wrong: dict[str, object]
) -> None:
    with store.ingest("ref") as writer:
        writer.write(b"hello")
        with pytest.raises(InvalidArgument):
            writer.commit(**wrong)  # type: ignore[arg-type]
    assert ingests(tmp_path) == []
    assert not store.has(digests.of(b"hello"))
    assert os.listdir(tmp_path / "content/sha256") == []


def test_an_ingest_goes_on_where_it_stopped(store: ContentStore, tmp_path: Path, db: Database) -> None:
    with store.ingest("ref") as writer:
        writer.write(b"hel")
    again = ContentStore(tmp_path, Contents(db))
    with again.ingest("ref") as writer:
        assert writer.offset == 3
        writer.write(b"lo")
        assert writer.digest == digests.of(b"hello")
        assert writer.commit(digests.of(b"hello"), 5) == digests.of(b"hello")
    assert ingests(tmp_path) == []
    with again.ingest("ref") as writer:
        writer.write(b"wrong start")
        writer.restart()
        writer.write(b"x")
        assert writer.commit() == digests.of(b"x")


def test_an_ingest_without_a_ref_leaves_nothing(store: ContentStore, tmp_path: Path) -> None:
    with store.ingest() as writer:
        writer.write(b"x")
    assert ingests(tmp_path) == []


def test_one_writer_a_ref(store: ContentStore) -> None:
    with store.ingest("ref"), pytest.raises(Conflict), store.ingest("ref"):
        pass
    with store.ingest("ref"):
        pass


def test_start_sweeps_leftovers_and_rows_without_a_file(
    store: ContentStore, tmp_path: Path, db: Database
) -> None:
    kept, lost = store.put(b"kept"), store.put(b"lost")
    store.path(lost).unlink()
    stray = store.path(digests.of(b"stray"))
    stray.write_bytes(b"stray")
    (tmp_path / "content/going/1").write_text(digests.hex_of(digests.of(b"stray")))
    (tmp_path / "content/ingest/once-1").write_bytes(b"x")
    old = tmp_path / "content/ingest/old"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    again = ContentStore(tmp_path, Contents(db))
    assert again.has(kept)
    assert not again.has(lost)
    assert not stray.exists()
    assert ingests(tmp_path) == []


def test_a_blob_without_a_row_is_taken_up(tmp_path: Path) -> None:
    """Its row was lost with a database; only what is on a list of what goes, or half published, is
    removed."""
    before = ContentStore(tmp_path, Contents(open_database(":memory:", MIGRATIONS)))
    digest = before.put(b"made here")
    (tmp_path / "content/sha256/notes.txt").write_text("whose?")
    after = ContentStore(tmp_path, Contents(open_database(":memory:", MIGRATIONS)))
    assert after.taken_up == [digest]
    assert after.read(digest, limit=100) == b"made here"
    (lost,) = LostFound(tmp_path).all()
    assert lost.path.read_text() == "whose?"
    assert after.strays(take_up=False) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ref", ["a ref", None])
def test_killed_before_the_row(tmp_path: Path, ref: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_arguments: object, **_keywords: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Contents, "insert", dies)
        patch.setattr(Writer, "close", lambda _self: None)
        store = ContentStore(tmp_path, Contents(open_database(":memory:", MIGRATIONS)))
        writer = store.ingest(ref)
        writer.write(b"x")
        with pytest.raises(Killed):
            writer.commit()
    writer._file.close()
    assert len(os.listdir(tmp_path / "content/sha256")) == 1
    again = ContentStore(tmp_path, Contents(open_database(":memory:", MIGRATIONS)))
    assert (again.taken_up, os.listdir(tmp_path / "content/sha256")) == ([], [])
    if ref is not None:
        with again.ingest(ref) as writer:
            assert writer.offset == 1


def test_killed_after_the_row(tmp_path: Path, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blob has two names then: a writer that goes on with the ingest must not write into it."""

    def dies(*_arguments: object, **_keywords: object) -> None:
        raise Killed

    store = ContentStore(tmp_path, Contents(db))
    writer = store.ingest("ref")
    writer.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "close", lambda _self: None)
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(Killed):
            writer.commit()
    writer._file.close()
    again = ContentStore(tmp_path, Contents(db))
    with again.ingest("ref") as writer:
        assert writer.offset == 0
        writer.write(b"yy")
    assert again.read(digests.of(b"x"), limit=9) == b"x"


@pytest.mark.parametrize("how", ["delete", "collect"])
def test_killed_in_a_removal(tmp_path: Path, db: Database, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def dies(*_arguments: object, **_keywords: object) -> None:
        os._exit(7)

    store = ContentStore(tmp_path, Contents(db))
    digest = store.put(b"x")
    pid = os.fork()
    if not pid:
        store.remove_files = dies  # type: ignore[method-assign,assignment]
        with contextlib.suppress(BaseException):
            if how == "delete":
                store.delete(digest)
            else:
                snapshots = VfsSnapshotter(tmp_path, Snapshots(db, "vfs"))
                Collector(store, Contents(db), snapshots).collect()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert os.listdir(tmp_path / "content/sha256")
    again = ContentStore(tmp_path, Contents(open_database(":memory:", MIGRATIONS)))
    assert (again.taken_up, os.listdir(tmp_path / "content/sha256")) == ([], [])


def test_what_the_disk_lost_can_be_put_again(store: ContentStore) -> None:
    digest = store.put(b"hello")
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(b"hell")):
        spoil(store.path(digest))
        assert store.knows(digest) and not store.has(digest)
        assert store.put(b"hello") == digest
        assert store.read(digest, limit=9) == b"hello"
        assert not store.problem(digest)


def test_a_damaged_document_is_set_aside(store: ContentStore, tmp_path: Path) -> None:
    digest = store.put(b"hello")
    store.path(digest).write_bytes(b"jello")
    with pytest.raises(NotFound, match="it was damaged"):
        store.read(digest, limit=9)
    (lost,) = LostFound(tmp_path).all()
    assert (lost.name, lost.path.read_bytes()) == (digest, b"jello")
    assert not store.has(digest)
    store.put(b"hello")
    assert store.read(digest, limit=9) == b"hello"


def test_a_lease_and_existence_are_one_step(store: ContentStore, db: Database) -> None:
    leases = Leases(LeaseRows(db))
    digest = store.put(b"x")
    rows = Contents(db)
    with leases.hold("test") as lease:
        assert store.keep(digest, lease.id)
        assert not store.keep(digests.of(b"absent"), lease.id)
        assert rows.delete_unreferenced() == []
    assert rows.delete_unreferenced() == [digest]
    assert not store.keep(digest, None)


def test_a_blob_that_comes_back_keeps_its_file(store: ContentStore, db: Database) -> None:
    digest = store.put(b"x")
    forgotten = Contents(db).delete_unreferenced()
    store.put(b"x")
    assert store.remove_files(forgotten) == 0
    assert store.read(digest, limit=1) == b"x"


def test_many_writers_at_once(store: ContentStore) -> None:
    def work(number: int) -> None:
        for step in range(20):
            store.put(b"%d" % ((number + step) % 7))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.read(row.digest, limit=1) for row in store.walk()} == {b"%d" % n for n in range(7)}


@pytest.mark.kernel
def test_a_full_disk_leaves_nothing(tmp_path: Path, db: Database) -> None:
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("none", str(small), "tmpfs", 0, "size=1m")
    try:
        store = ContentStore(small, Contents(db))
        with pytest.raises(Unavailable, match="no space left on device"), store.ingest() as writer:
            writer.write(bytes(4 << 20))
        assert os.listdir(small / "content/ingest") == []
        assert os.listdir(small / "content/sha256") == []
        store.put(b"small things still fit")
    finally:
        syscalls.umount(str(small))
