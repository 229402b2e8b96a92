"""Blobs: verified, resumable, whole or not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wherry.linux import syscalls
from wherry.model import digest as digests
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.storage.content import ContentStore
from wherry.storage.leases import Leases


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "db", MIGRATIONS)


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


def test_start_sweeps_what_has_no_row_and_rows_without_a_file(
    store: ContentStore, tmp_path: Path, db: Database
) -> None:
    kept, lost = store.put(b"kept"), store.put(b"lost")
    store.path(lost).unlink()
    stray = store.path(digests.of(b"stray"))
    stray.write_bytes(b"stray")
    (tmp_path / "content/ingest/once-1").write_bytes(b"x")
    old = tmp_path / "content/ingest/old"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    again = ContentStore(tmp_path, Contents(db))
    assert again.has(kept)
    assert not again.has(lost)
    assert not stray.exists()
    assert ingests(tmp_path) == []


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
