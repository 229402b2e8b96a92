"""Secrets at rest: sealed, bound to their id, under a key that nobody else may read."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.state.schema import MIGRATIONS
from wherry.state.secrets import Secrets
from wherry.volumes.secrets import SIZE_MAX, SecretStore

VALUE = b"correct horse battery staple"


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path, Secrets(open_database(tmp_path / "db", MIGRATIONS)))


def test_a_value_comes_back_and_is_nowhere_on_the_disk(store: SecretStore, tmp_path: Path) -> None:
    row = store.create("one", VALUE, {"a": "b"})
    assert store.reveal(row.id) == VALUE
    assert store.get("one") == store.get(row.id) == store.get(row.id[:20]) == row
    assert not [path for path in tmp_path.iterdir() if VALUE in path.read_bytes()]
    assert (tmp_path / "secrets.key").stat().st_mode & 0o7777 == 0o600
    # Another store on the same files has it as well.
    assert SecretStore(tmp_path, Secrets(open_database(tmp_path / "db", MIGRATIONS))).reveal(row.id) == VALUE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o601, 0o700])
def test_a_lax_key_file_is_refused(store: SecretStore, tmp_path: Path, mode: int) -> None:
    row = store.create("one", VALUE, {})
    (tmp_path / "secrets.key").chmod(mode)
    with pytest.raises(Unavailable, match=f"has mode {mode:04o}"):
        store.reveal(row.id)
    with pytest.raises(Unavailable, match="must be 0600"):
        store.create("two", VALUE, {})
    assert [row.name for row in store.all()] == ["one"]


def test_key_files_that_are_none(store: SecretStore, tmp_path: Path) -> None:
    row = store.create("one", VALUE, {})
    key = tmp_path / "secrets.key"
    kept = key.read_bytes()
    key.unlink()
    # No new key is made beside what was sealed with another.
    for act in (lambda: store.reveal(row.id), lambda: store.create("two", VALUE, {})):
        with pytest.raises(Unavailable, match="does not exist"):
            act()
    (tmp_path / "elsewhere").write_bytes(kept)
    key.symlink_to("elsewhere")
    with pytest.raises(Unavailable, match="symbolic links"):
        store.reveal(row.id)
    key.unlink()
    os.mkfifo(key, 0o600)
    with pytest.raises(Unavailable, match="no regular file"):
        store.reveal(row.id)
    key.unlink()
    key.touch(0o600)
    key.write_bytes(kept[:-1])
    with pytest.raises(Unavailable, match="does not hold 32 bytes"):
        store.reveal(row.id)
    key.write_bytes(bytes(32))
    with pytest.raises(Internal, match="another key"):
        store.reveal(row.id)
    key.write_bytes(kept)
    assert store.reveal(row.id) == VALUE


def test_a_row_does_not_open_with_another_ones_value(store: SecretStore, tmp_path: Path) -> None:
    one, two = store.create("one", VALUE, {}), store.create("two", b"other", {})
    with closing(sqlite3.connect(tmp_path / "db")) as db, db:
        query = "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE id = ?) WHERE id = ?"
        db.execute(query, (two.id, one.id))
    with pytest.raises(Internal, match="cannot open secret"):
        store.reveal(one.id)
    with closing(sqlite3.connect(tmp_path / "db")) as db, db:
        db.execute("UPDATE secrets SET sealed = x'00' WHERE id = ?", (one.id,))
    with pytest.raises(Internal, match="cannot open secret"):
        store.reveal(one.id)


def test_names_sizes_and_versions(store: SecretStore) -> None:
    for name in ("", "-a", "a-", "a" * 65, "a/b", "a b", "é"):
        with pytest.raises(InvalidArgument, match="invalid name"):
            store.create(name, VALUE, {})
    for value in (b"", bytes(SIZE_MAX)):
        with pytest.raises(InvalidArgument, match="larger than 0 and less than 512000 bytes"):
            store.create("one", value, {})
    row = store.create("one", bytes(SIZE_MAX - 1), {})
    with pytest.raises(Conflict, match="secret one already exists"):
        store.create("one", VALUE, {})
    changed = store.relabel("one", row.version, {"k": "v"})
    assert (changed.version, changed.labels, changed.created) == (2, {"k": "v"}, row.created)
    with pytest.raises(Conflict, match="out of sequence"):
        store.relabel("one", row.version, {})
    store.remove(row.id)
    for wanted in ("one", row.id, ""):
        with pytest.raises(NotFound, match="not found"):
            store.get(wanted)
    with pytest.raises(NotFound):
        store.reveal(row.id)
