"""A full disk: what grows is refused, what removes works, and a start works, whoever writes beside it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import open_database
from patience import patiently

from wherry.errors import Unavailable
from wherry.linux.mounts import mount, unmount
from wherry.model.mount import Mount
from wherry.state.database import Database

pytestmark = pytest.mark.kernel
TABLES = "CREATE TABLE a (x INTEGER PRIMARY KEY, y BLOB);"


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    if request.param == "tmpfs":
        mount(Mount("tmpfs", "small", ("size=24m",)), where)
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(24 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
    try:
        yield where
    finally:
        unmount(where)


def fill(disk: Path) -> None:
    """Whatever is free is taken at once, by whoever comes first."""
    with contextlib.suppress(OSError), (disk / f"filler-{os.urandom(4).hex()}").open("wb", 0) as file:
        while True:
            file.write(b"x" * 512)


def add(db: Database, number: int) -> None:
    db.execute("INSERT INTO a VALUES (?, ?)", (number, os.urandom(3000)))


def fill_up(db: Database, disk: Path, first: int) -> int:
    """Add rows until no more are taken; the next number."""
    for number in range(first, first + 5000):
        fill(disk)
        try:
            add(db, number)
        except Unavailable as e:
            assert "no space left on device" in e.message
            return number
    raise AssertionError("the database took everything")


def test_removals_work_on_a_full_disk(disk: Path) -> None:
    db = open_database(disk / "db", [TABLES])
    for number in range(500):
        add(db, number)
    end = fill_up(db, disk, 500)
    for number in range(0, end, 7):
        fill(disk)
        assert db.execute("DELETE FROM a WHERE x = ?", (number,)) == 1
        assert db.execute("UPDATE a SET y = ? WHERE x = ?", (b"short", number + 1)) == 1
        with pytest.raises(Unavailable), db.transaction(growing=True) as connection:
            for other in range(2000):
                connection.execute("INSERT INTO a VALUES (?, ?)", (10_000 + other, os.urandom(9000)))
    for path in disk.glob("filler*"):
        path.unlink()
    add(db, 20_000)
    db.close()
    again = open_database(disk / "db", [TABLES])
    assert again.one("SELECT 1 FROM a WHERE x = 20000") is not None
    assert again.one("SELECT 1 FROM a WHERE x = 7") is None
    again.close()


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_start_on_a_full_disk(disk: Path, how: str) -> None:
    db = open_database(disk / "db", [TABLES])
    for number in range(300):
        add(db, number)
    fill(disk)
    if how == "closed":
        db.close()
        fill(disk)
    else:
        script = (
            "import os, sys, sqlite3; from pathlib import Path; from wherry.state.database import Database;"
            "db = Database(Path(sys.argv[1]), [sys.argv[2]]); db.execute('DELETE FROM a WHERE x < 10');"
            "os.kill(os.getpid(), 9)"
        )
        db.close()
        fill(disk)
        subprocess.run(
            [sys.executable, "-c", script, str(disk / "db"), TABLES], check=False, timeout=patiently(60)
        )
        fill(disk)
    again = open_database(disk / "db", [TABLES])
    for number in range(10, 290):
        fill(disk)
        assert again.execute("DELETE FROM a WHERE x = ?", (number,)) == 1
    again.close()
    with contextlib.closing(sqlite3.connect(f"file:{disk}/db?mode=ro&immutable=1", uri=True)) as look:
        found = [x for (x,) in look.execute("SELECT x FROM a ORDER BY x")]
    kept = range(10) if how == "closed" else range(0)
    assert found == [*kept, *range(290, 300)]


def test_a_kept_log_is_not_applied_to_another_database(tmp_path: Path) -> None:
    """The file that was the log of a newer database must do nothing to an older one that was put back."""
    path = tmp_path / "db"
    db = open_database(path, [TABLES])
    add(db, 1)
    db.close()
    old = path.read_bytes()
    db = open_database(path, [TABLES])
    for number in range(2, 200):
        add(db, number)
    db.close()
    assert (tmp_path / "db.reserve").stat().st_blocks > 0
    assert not (tmp_path / "db-wal").exists()
    path.write_bytes(old)
    again = open_database(path, [TABLES])
    assert [row["x"] for row in again.all("SELECT x FROM a")] == [1]
    again.close()
