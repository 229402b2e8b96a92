"""The embedded database, files as objects, the schema; tokens and their revocation on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from wherry.hub.auth import bearer
from wherry.hub.auth.bearer import Invalid, Tokens
from wherry.hub.core.rights import READ, Principal
from wherry.hub.store import accounts, schema
from wherry.hub.store.files import Files, write_all
from wherry.hub.store.objects import Full, ObjectLost
from wherry.hub.store.sql import Broken, DatabaseAway, Tx
from wherry.hub.store.sqlite import Sqlite, connect


def with_database(tmp_path: Path, work: Callable[[Sqlite], Awaitable[None]]) -> None:
    async def run() -> None:
        db = Sqlite(tmp_path / "hub.db")
        try:
            await schema.migrate(db)
            await work(db)
        finally:
            await db.close()

    asyncio.run(run())


def test_both_engines_have_a_schema_of_the_same_statements() -> None:
    for _, path in schema.scripts():
        for_sqlite, for_postgres = (schema.statements(path, engine) for engine in ("sqlite", "postgres"))
        assert len(for_sqlite) == len(for_postgres) > 0
        assert not any("$" in one for one in (*for_sqlite, *for_postgres))
    numbers = [number for number, _ in schema.scripts()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_migrations_run_once(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        assert await schema.migrate(db) == []
        assert await schema.version(db) == schema.scripts()[-1][0]

    with_database(tmp_path, work)
    assert (tmp_path / "hub.db").stat().st_mode & 0o777 == 0o600


def test_pieces_share_a_commit_and_not_a_fate(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        def add(tx: Tx, name: str) -> int:
            made = accounts.add(tx, name, "", admin=False)
            if name == "bad":
                raise ValueError("after it had written")
            return made

        done = await asyncio.gather(
            *(db.write(lambda tx, n=name: add(tx, n)) for name in ("aaa", "bad", "ccc")),
            return_exceptions=True,
        )
        assert isinstance(done[1], ValueError)
        found = await db.read(accounts.all_of)
        assert [name for name, *_ in found] == ["aaa", "ccc"]

    with_database(tmp_path, work)


def test_foreign_keys_hold(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        with pytest.raises(Broken):
            await db.write(
                lambda tx: tx.run("INSERT INTO repository_blob (repository_id, blob_id) VALUES (7, 7)")
            )

    with_database(tmp_path, work)


def test_another_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        other = connect(tmp_path / "hub.db")
        try:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(db.write(lambda tx: accounts.add(tx, "late", "", admin=False)))
            await asyncio.sleep(0.1)  # it must not be done
            assert not writing.done()
            other.execute("ROLLBACK")
            assert await writing == 1
        finally:
            other.close()

    with_database(tmp_path, work)


def test_a_database_that_takes_nothing(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        db._writer.execute("PRAGMA max_page_count=1")  # as many as there are
        with pytest.raises(DatabaseAway):
            await db.write(lambda tx: accounts.add(tx, "x" * 1_000_000, "", admin=False))
        db._writer.execute("PRAGMA max_page_count=1000000")
        await db.write(lambda tx: accounts.add(tx, "somebody", "", admin=False))
        assert [name for name, *_ in await db.read(accounts.all_of)] == ["somebody"]

    with_database(tmp_path, work)


def test_files(tmp_path: Path) -> None:
    async def run() -> None:
        files = Files(tmp_path)
        key = "ab" * 16
        into = await files.append(key, "", 0)
        await into.write([b"hello ", b"", b"world"])
        state = await into.close()
        into = await files.append(key, state, 5)
        await into.write([b", you"])
        await into.close()
        with pytest.raises(ObjectLost):
            await files.append(key, "", 11)
        with pytest.raises(ObjectLost):
            await files.finish(key, "", 11)
        await files.finish(key, "", 10)
        assert await files.size(key) == 10
        assert b"".join([piece async for piece in files.read(key, 1, 8)]) == b"ello, yo"
        with pytest.raises(ObjectLost):
            [piece async for piece in files.read(key, 0, 10)]
        assert [(one.key, one.size) async for one in files.all()] == [(key, 10)]
        await files.delete(key)
        await files.delete(key)
        assert await files.size(key) is None
        await files.finish("cd" * 16, "", 0)
        assert await files.size("cd" * 16) == 0
        with pytest.raises(Full):
            await Files(tmp_path, reserve=1 << 60).check_room(1)

    asyncio.run(run())


def test_writes_that_the_kernel_cuts_short(monkeypatch: pytest.MonkeyPatch) -> None:
    got = bytearray()

    def writev(_: int, pieces: list[memoryview]) -> int:
        taken = b"".join(pieces)[:3]
        got.extend(taken)
        return len(taken)

    monkeypatch.setattr("os.writev", writev)
    write_all(0, [b"ab", b"cdefg", b"", b"h"])
    assert bytes(got) == b"abcdefgh"


def test_tokens(tmp_path: Path) -> None:
    async def work(db: Sqlite) -> None:
        tokens, other = Tokens("here"), Tokens("there")
        await db.write(bearer.ensure_key)
        await db.write(bearer.ensure_key)
        assert len(await db.read(accounts.signing_keys)) == 1
        await tokens.refresh(db)
        await other.refresh(db)
        caller = Principal(1, "alice", scope="write", patterns=("a/*",), subjects=("account:1", "token:2"))
        made = tokens.make(caller, {"a/b": READ, "a/c": frozenset()})
        checked = tokens.check(made)
        assert checked.access == {"a/b": READ}
        assert (checked.account, checked.name, checked.scope) == (1, "alice", "write")
        with pytest.raises(Invalid):
            other.check(made)  # for another service
        await db.write(bearer.rotate)
        await tokens.refresh(db)
        tokens.check(made)  # the key before still counts
        await db.write(bearer.rotate)
        await tokens.refresh(db)
        with pytest.raises(Invalid):
            tokens.check(made)

    with_database(tmp_path, work)


@pytest.mark.parametrize("subject", ["account:1", "token:2", "repository:a/b"])
def test_revoked_tokens(tmp_path: Path, subject: str) -> None:
    async def work(db: Sqlite) -> None:
        tokens = Tokens("here")
        await db.write(bearer.ensure_key)
        await tokens.refresh(db)
        caller = Principal(1, "alice", subjects=("account:1", "token:2"))
        made = tokens.make(caller, {"a/b": READ})
        tokens.check(made)
        await db.write(lambda tx: accounts.revoke(tx, "account:9"))
        await db.write(lambda tx: accounts.revoke(tx, subject))
        await tokens.refresh(db)
        with pytest.raises(Invalid):
            tokens.check(made)
        tokens.check(tokens.make(caller, {"a/b": READ}))

    with_database(tmp_path, work)


def test_expired_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(db: Sqlite) -> None:
        tokens = Tokens("here")
        await db.write(bearer.ensure_key)
        await tokens.refresh(db)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - bearer.LIFE - 1)
        made = tokens.make(Principal(1, "alice"), {})
        tokens._known.clear()
        monkeypatch.undo()
        with pytest.raises(Invalid):
            tokens.check(made)

    with_database(tmp_path, work)
