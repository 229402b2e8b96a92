from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from databases import open_database

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound
from wherry.model.container import Container, ContainerConfig, ContainerState, HostConfig
from wherry.model.digest import of
from wherry.model.events import Event, Initiator
from wherry.state.containers import Containers
from wherry.state.events import EventLog
from wherry.state.schema import MIGRATIONS

ONE = "CREATE TABLE a (x INTEGER);"
TWO = "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 5;"


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "db"
    first = open_database(path, [ONE])
    first.execute("INSERT INTO a VALUES (1)")
    first.close()
    second = open_database(path, [ONE, TWO])
    assert [tuple(r) for r in second.all("SELECT x, y FROM a")] == [(1, 5)]
    second.close()
    open_database(path, [ONE, TWO]).close()
    assert version(path) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, [ONE]).close()
    with pytest.raises(Internal, match="cannot open database"):
        open_database(path, [ONE, TWO + "nonsense;"])
    assert version(path) == 1
    open_database(path, [ONE, TWO]).close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, [ONE, TWO]).close()
    with pytest.raises(Internal, match="newer than this program"):
        open_database(path, [ONE])


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(Internal, match="cannot open database"):
        open_database(path, [ONE])


def test_transactions_nest_and_roll_back() -> None:
    db = open_database(":memory:", [ONE])
    with db.transaction(), db.transaction() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
    with pytest.raises(KeyError), db.transaction():
        db.execute("INSERT INTO a VALUES (2)")
        raise KeyError
    assert [r["x"] for r in db.all("SELECT x FROM a")] == [1]
    db.close()


def test_many_threads_write() -> None:
    db = open_database(":memory:", [ONE])

    def work() -> None:
        for n in range(50):
            with db.transaction() as connection:
                connection.execute("INSERT INTO a VALUES (?)", (n,))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = db.one("SELECT count(*) AS n FROM a")
    assert found is not None and found["n"] == 200
    db.close()


def container(identifier: str, created: int = 1) -> Container:
    return Container(
        id=identifier,
        created=created,
        image_ref="i",
        image_id=of(b"i"),
        chain_id=None,
        platform="linux/amd64",
        path="sh",
        args=[],
        config=ContainerConfig(),
        host_config=HostConfig(),
        networks={},
        mounts=[],
        storage_driver="vfs",
    )


def test_containers_are_found_by_id_prefix_and_name() -> None:
    db = open_database(":memory:", MIGRATIONS)
    rows = Containers(db)
    one, two = "ab" + "0" * 62, "ac" + "1" * 62
    rows.insert("first", container(one, 1), ContainerState())
    rows.insert("ac", container(two, 2), ContainerState())
    assert rows.find("ab").id == one
    assert rows.find("/first").id == rows.find(one).id == one
    assert rows.find("ac").id == two
    assert [r.id for r in rows.all()] == [two, one]
    with pytest.raises(Conflict, match="multiple IDs"):
        rows.find("a")
    with pytest.raises(InvalidArgument, match='invalid name or ID supplied: ""'):
        rows.find("")
    for missing in ("zz", "ab1", "%", "first'--", "ab" + "0" * 63):
        with pytest.raises(NotFound, match="No such container"):
            rows.find(missing)
    with pytest.raises(Conflict, match='name "/first" is already in use'):
        rows.insert("first", container("ad" + "0" * 62), ContainerState())
    with pytest.raises(Conflict):
        rows.rename(two, "first")
    rows.set_state(one, ContainerState(status="exited", exit_code=3))
    assert rows.find("first").state.exit_code == 3
    rows.delete(one)
    rows.delete(one)
    assert not rows.name_exists("first")
    db.close()


def test_the_newest_events_where_nobody_says_since_when() -> None:
    """As many as Docker remembers, though there are more."""
    db = open_database(":memory:", MIGRATIONS)
    log = EventLog(db)
    for n in range(1, 301):
        log.append(Event("container", "start", "x", n, {}))
    assert [e.time for e in log.between(None, 299)] == list(range(45, 300))
    assert len(list(log.between(1, 299))) == 299
    db.close()


def test_events_are_bounded_and_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherry.state.events._PAGE", 7)
    db = open_database(":memory:", MIGRATIONS)
    log = EventLog(db, keep=10)
    for n in range(1, 600):
        log.append(Event("container", "start", "x", n, {"n": str(n)}))
    kept = list(log.between(None, None))
    assert kept[-1].time == 599 and kept[-1].attributes == {"n": "599"}
    assert len(kept) <= 10 + 256
    assert [e.time for e in log.between(590, 592)] == [590, 591, 592]
    db.close()


def test_events_are_bounded_by_age_as_well() -> None:
    day = 24 * 3600 * 10**9
    db = open_database(":memory:", MIGRATIONS)
    log = EventLog(db, keep_days=2)
    for n in range(1, 513):
        log.append(Event("container", "start", "x", n * day))
    assert next(log.between(None, None)).time >= 510 * day
    db.close()


def test_pages_end_with_what_was_there_when_reading_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherry.state.events._PAGE", 2)
    db = open_database(":memory:", MIGRATIONS)
    log = EventLog(db)
    for n in range(1, 6):
        log.append(Event("container", "start", "x", n))
    seen = []
    for event in log.between(None, None):
        seen.append(event.time)
        log.append(Event("container", "start", "x", event.time + 100))
    assert seen == [1, 2, 3, 4, 5]
    db.close()


def test_a_first_version_file_gets_a_place_for_who_asked(tmp_path: Path) -> None:
    db = open_database(tmp_path / "old.db", MIGRATIONS[:1])
    values = "(1, 'a', 'b', 'c', 'local', '{}')"
    db.execute(f"INSERT INTO events (time, type, action, actor, scope, attributes) VALUES {values}")
    db.close()
    db = open_database(tmp_path / "old.db", MIGRATIONS)
    log = EventLog(db)
    who = Initiator(user="root", uid=0, pid=7)
    log.append(Event("a", "b", "c", 2, initiator=who))
    assert [e.initiator for e in log.between(None, None)] == [None, who]
    db.close()
