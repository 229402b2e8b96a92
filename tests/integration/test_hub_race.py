"""The collector beside pushers, on both databases and both object stores; and after kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import hub_race
import hubstores
import pytest
from patience import patiently, until

from wherry.hub.store import schema
from wherry.hub.store.files import Files
from wherry.hub.store.objects import Objects
from wherry.hub.store.sql import HubDatabase
from wherry.hub.store.sqlite import Sqlite

ENGINES = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def server() -> Iterator[hubstores.LabPostgres]:
    if not hubstores.HAVE_POSTGRES:
        pytest.skip("PostgreSQL's programs are not here, or we are not root")
    with hubstores.postgres() as made:
        yield made


def open_database(address: str) -> HubDatabase:
    if address.startswith("postgresql"):
        from wherry.hub.store.postgres import Postgres

        return Postgres(address)
    return Sqlite(Path(address))


@pytest.fixture(params=ENGINES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "hub.db")
    made: hubstores.LabPostgres = request.getfixturevalue("server")
    return made.database()


async def _race(address: str, objects: Objects, rounds: int) -> None:
    db = open_database(address)
    try:
        await schema.migrate(db)
        done = await hub_race.Race(db, objects, seed=1).run(rounds)
        assert done["images"] and done["collected blobs"] and done["collected objects"], done
        assert await hub_race.findings(db, objects) == []
        assert await hub_race.empty(db, objects) == []
    finally:
        await objects.close()
        await db.close()


@pytest.mark.patient(300)
def test_the_collector_beside_pushers(address: str, tmp_path: Path) -> None:
    asyncio.run(_race(address, Files(tmp_path), 60))


@pytest.mark.slow
@pytest.mark.patient(300)
def test_the_same_on_s3(server: hubstores.LabPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    from wherry.hub.store.s3 import S3

    with hubstores.s3() as store:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)

        async def run() -> None:
            await _race(server.database(), S3(store.bucket()), 12)

        asyncio.run(run())


_WORKER = """
import asyncio, sys
sys.path[:0] = {path!r}
import hub_race, test_hub_race
from pathlib import Path
from wherry.hub.store.files import Files
async def main():
    db = test_hub_race.open_database(sys.argv[1])
    print("ready", flush=True)
    await hub_race.Race(db, Files(Path(sys.argv[2])), int(sys.argv[3])).run(10_000, pushers=3, collectors=1)
asyncio.run(main())
"""


async def _judge(address: str, objects: Objects) -> None:
    db = open_database(address)
    try:
        assert await hub_race.findings(db, objects) == []
    finally:
        await db.close()


async def _settle(address: str, objects: Objects) -> None:
    """Uploads of the killed lie there until they expire: they are made to."""
    db = open_database(address)
    try:
        await db.write(lambda tx: tx.run("UPDATE upload SET expires = 0, lease_until = 0"))
        assert await hub_race.empty(db, objects) == []
    finally:
        await db.close()


@pytest.mark.slow
@pytest.mark.patient(600)
def test_killed_in_the_middle(address: str, tmp_path: Path) -> None:
    """Two processes push and collect, and are killed without a word, again and again: after each time every
    row has its bytes and all bytes have a row."""

    async def migrate() -> None:
        db = open_database(address)
        await schema.migrate(db)
        await db.close()

    asyncio.run(migrate())
    objects, pause = Files(tmp_path), Random(7)
    program = _WORKER.format(path=[p for p in sys.path if "tests" in p])
    for turn in range(12):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", program, address, str(tmp_path), str(turn * 10 + i)],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
            for i in range(2)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == b"ready\n"
            before = sum(1 for _ in (tmp_path / "objects").rglob("*"))
            with_luck = pause.random() * 1.5
            until(lambda b=before: sum(1 for _ in (tmp_path / "objects").rglob("*")) != b, "they work")
            asyncio.run(asyncio.sleep(with_luck))  # when it happens to fall is what is tried
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
            for worker in workers:
                worker.wait(patiently(20))
                assert worker.stdout is not None
                worker.stdout.close()
        asyncio.run(_judge(address, objects))
    asyncio.run(_settle(address, objects))
