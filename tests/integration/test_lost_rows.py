"""The database is older than what is below the root, or gone: nothing that somebody made is removed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["overlay", "vfs"])
def own(request: pytest.FixtureRequest) -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base(), "--storage-driver", request.param)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def lone() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def rows(daemon: LabDaemon) -> list[Path]:
    return [p for p in daemon.root.iterdir() if p.name in ("wherry.db", "wherry.db-wal", "wherry.db-shm")]


def keep(daemon: LabDaemon, away: Path) -> None:
    away.mkdir()
    for path in rows(daemon):
        shutil.copy2(path, away)


def put_back(daemon: LabDaemon, away: Path) -> None:
    lose(daemon)
    for path in away.iterdir():
        shutil.copy2(path, daemon.root)


def lose(daemon: LabDaemon) -> None:
    for path in rows(daemon):
        path.unlink()


def rebuild(daemon: LabDaemon) -> subprocess.CompletedProcess[bytes]:
    argv = [*daemon.argv(), "--rebuild"]
    return subprocess.run(argv, capture_output=True, timeout=patiently(60), check=False)


def refused(daemon: LabDaemon) -> str:
    """How a start ends that must not succeed."""
    result = subprocess.run(daemon.argv(), capture_output=True, timeout=patiently(60), check=False)
    text = result.stderr.decode()
    assert result.returncode == 1, text
    assert "Traceback" not in text
    return text


def make_things(daemon: LabDaemon) -> str:
    """A volume with orders, a snapshot of it, a container with files and a log, an image of that."""
    daemon.docker("volume", "create", "--label", "a=b", "shop").ok()
    daemon.docker(
        *("run", "--name", "box", "-v", "shop:/d", "-v", "/anonymous", "-e", "KEY=value", "busybox"),
        *("sh", "-c", "echo orders > /d/db; echo mine > /own; echo quiet > /anonymous/f; echo said"),
    ).ok()
    daemon.wherry("volume", "snapshot", "create", "shop", "monday").ok()
    daemon.docker("commit", "box", "kept:1").ok()
    daemon.docker("run", "--name", "second", "kept:1", "cat", "/own").ok()
    identifier: str = daemon.api("GET", "/containers/box/json").json["Id"]
    return identifier


def check_things(daemon: LabDaemon) -> None:
    assert daemon.docker("run", "--rm", "-v", "shop:/d", "busybox", "cat", "/d/db").ok() == "orders"
    assert daemon.api("GET", "/volumes/shop").json["Labels"] == {"a": "b"}
    kept = daemon.api("GET", "/volumes/shop/snapshots").json["Snapshots"]
    assert [s["Name"] for s in kept] == ["monday"]
    box = daemon.api("GET", "/containers/box/json").json
    assert box["State"]["Status"] == "exited"
    assert "KEY=value" in box["Config"]["Env"]
    assert daemon.docker("logs", "box").ok() == "said"
    own = daemon.base / "own"
    daemon.docker("cp", "box:/own", str(own)).ok()
    assert own.read_text() == "mine\n"
    (quiet,) = [m["Name"] for m in box["Mounts"] if m["Destination"] == "/anonymous"]
    assert daemon.docker("run", "--rm", "-v", f"{quiet}:/q", "busybox", "cat", "/q/f").ok() == "quiet"
    assert daemon.docker("run", "--rm", "kept:1", "cat", "/own").ok() == "mine"
    assert daemon.docker("start", "-a", "box").ok() == "said"
    assert daemon.docker("volume", "rm", "shop").code == 1  # the container has it still
    daemon.docker("rm", "-v", "box", "second").ok()
    assert quiet not in daemon.volumes()
    daemon.docker("volume", "rm", "shop").ok()
    assert daemon.wherry("system", "fsck").code == 0
    assert not (daemon.root / "lost+found").exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_older_database_comes_back(own: LabDaemon, end: int) -> None:
    daemon = own
    daemon.end()
    keep(daemon, daemon.base / "away")
    daemon.start()
    make_things(daemon)
    daemon.end(end)
    put_back(daemon, daemon.base / "away")
    daemon.start()
    check_things(daemon)


def test_the_database_is_gone(own: LabDaemon) -> None:
    daemon = own
    make_things(daemon)
    daemon.end()
    lose(daemon)
    (daemon.root / "wherry.db.1").unlink()
    text = refused(daemon)
    assert " has 3 volumes, 2 containers, " in text and "wherryd --rebuild" in text
    assert not (daemon.root / "wherry.db").exists()
    (daemon.root / "wherry.db").touch()
    assert "but no database" in refused(daemon)
    done = rebuild(daemon)
    assert done.returncode == 0, done.stderr
    daemon.start()
    assert daemon.tags() == {"busybox:latest", "kept:1"}
    check_things(daemon)


def test_names_come_back_from_the_copy(lone: LabDaemon) -> None:
    """What is in the database alone: names of images, networks, secrets."""
    lone.docker("tag", "busybox", "other:2").ok()
    lone.docker("network", "create", "net").ok()
    lone.docker("secret", "create", "token", "-", input=b"x").ok()
    lone.end()
    lose(lone)
    assert rebuild(lone).returncode == 0
    lone.start()
    assert lone.tags() == {"busybox:latest", "other:2"}
    assert "net" in lone.networks()
    assert lone.docker("secret", "ls", "-q").ok()
    assert lone.docker("run", "--rm", "--network", "net", "busybox", "echo", "x").ok() == "x"


def test_a_damaged_database(lone: LabDaemon) -> None:
    """A start says so and what to do; what can be read of it is read."""
    make_things(lone)
    lone.end()
    path = lone.root / "wherry.db"
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(64))
    text = refused(lone)
    assert "is damaged" in text and "wherryd --rebuild" in text
    done = rebuild(lone)
    assert done.returncode == 0, done.stderr
    lone.start()
    (lost,) = (lone.root / "lost+found").iterdir()
    assert (lost / "data" / "wherry.db").exists()
    shutil.rmtree(lone.root / "lost+found")
    check_things(lone)


def test_flipped_bytes_never_end_in_a_traceback(lone: LabDaemon) -> None:
    make_things(lone)
    lone.end()
    path = lone.root / "wherry.db"
    whole = path.read_bytes()
    step = len(whole) // 12
    for number in range(12):
        at = number * step + 7
        path.write_bytes(whole[:at] + bytes(b ^ 0xFF for b in whole[at : at + 200]) + whole[at + 200 :])
        for left in rows(lone):
            if left != path:
                left.unlink()
        argv = [*lone.argv(), "--rebuild"] if number % 2 else [*lone.argv(), "--teardown"]
        result = subprocess.run(argv, capture_output=True, timeout=patiently(60), check=False)
        assert b"Traceback" not in result.stderr, result.stderr.decode()
        if number % 2:
            assert result.returncode == 0, result.stderr.decode()
    path.write_bytes(whole)
    lone.start()
    assert lone.docker("run", "--rm", "-v", "shop:/d", "busybox", "cat", "/d/db").ok() == "orders"


def test_a_layer_whose_container_does_not_say_what_it_is(lone: LabDaemon) -> None:
    lone.end()
    keep(lone, lone.base / "away")
    lone.start()
    lone.docker("run", "--name", "box", "busybox", "sh", "-c", "echo mine > /own").ok()
    identifier = lone.api("GET", "/containers/box/json").json["Id"]
    lone.end()
    (lone.root / "containers" / identifier / "container.json").unlink()
    put_back(lone, lone.base / "away")
    lone.start()
    listed = lone.wherry("system", "lost", "ls", "--format", "{{.Kind}} {{.Name}} {{.ID}}").ok().splitlines()
    kinds = {line.split()[0]: line.split()[2] for line in listed}
    assert set(kinds) == {"layer", "container"}
    assert lone.wherry("system", "lost", "restore", kinds["layer"], "found").ok() == "found"
    assert lone.docker("run", "--rm", "-v", "found:/f", "busybox", "cat", "/f/own").ok() == "mine"
    lone.wherry("system", "lost", "rm", kinds["container"]).ok()
    assert lone.wherry("system", "lost", "ls", "-q").ok() == ""
    done = lone.wherry("system", "lost", "rm", "abc")
    assert done.code == 1 and "nothing that was set aside has the id abc" in done.errors
