"""The labs that people learn volumes with, and databases that must not lose what they said they kept."""

from __future__ import annotations

import io
import os
import secrets
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel

_HOSTS_PYTHON = ("-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")
_PYTHON = "/usr/bin/python3"
_WRITER = """
import sqlite3
db = sqlite3.connect("/data/db")
db.execute("PRAGMA journal_mode = wal")
db.execute("PRAGMA synchronous = full")
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, square INTEGER)")
n = db.execute("SELECT coalesce(max(n), 0) FROM t").fetchone()[0]
while True:
    n += 1
    with db:
        db.execute("INSERT INTO t VALUES (?, ?)", (n, n * n))
    print(n, flush=True)
"""
_CHECK = """
import sqlite3
db = sqlite3.connect("/data/db")
assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
count, last, wrong = db.execute("SELECT count(*), max(n), sum(square != n * n) FROM t").fetchone()
assert (count, wrong) == (last, 0), (count, last, wrong)
print(last)
"""


def run(daemon: LabDaemon, *arguments: str) -> str:
    return daemon.docker("run", "--rm", *arguments).ok()


def test_written_read_kept_and_shared(daemon: LabDaemon, name: str) -> None:
    run(daemon, "-v", f"{name}:/a", "busybox", "sh", "-c", "echo hello >/a/file")
    assert run(daemon, "-v", f"{name}:/b:ro", "busybox", "cat", "/b/file") == "hello"
    read_only = daemon.docker("run", "--rm", "-v", f"{name}:/b:ro", "busybox", "touch", "/b/x")
    assert read_only.code == 1 and "Read-only file system" in read_only.errors
    for number in ("1", "2"):
        box = ("-d", "--name", f"{name}-{number}", "-v", f"{name}:/s", "busybox", "sleep", "1000")
        daemon.docker("run", *box).ok()
    daemon.docker("exec", f"{name}-1", "sh", "-c", "echo from-one >/s/shared").ok()
    assert daemon.docker("exec", f"{name}-2", "cat", "/s/shared").ok() == "from-one"
    daemon.docker("rm", "-f", "-v", f"{name}-1", f"{name}-2").ok()
    assert run(daemon, "-v", f"{name}:/b", "busybox", "cat", "/b/file", "/b/shared") == "hello\nfrom-one"


def test_a_backup_with_volumes_from_and_tar(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    fill = "echo data >/dbdata/f; chown 5:6 /dbdata/f; ln -s f /dbdata/l"
    daemon.docker("run", "-v", "/dbdata", "--name", name, "busybox", "sh", "-c", fill).ok()
    backup = ("--volumes-from", name, "-v", f"{tmp_path}:/backup", "busybox")
    run(daemon, *backup, "tar", "cf", "/backup/backup.tar", "-C", "/dbdata", ".")
    daemon.docker("rm", "-v", name).ok()
    restore = ("-v", f"{name}:/dbdata", "-v", f"{tmp_path}:/backup", "busybox")
    run(daemon, *restore, "tar", "xf", "/backup/backup.tar", "-C", "/dbdata")
    look = ("busybox", "sh", "-c", "cat /d/f; stat -c %u:%g /d/f; readlink /d/l")
    assert run(daemon, "-v", f"{name}:/d", *look).split() == ["data", "5:6", "f"]


def test_edits_of_a_bind_are_seen_and_a_tmpfs_leaves_nothing(
    daemon: LabDaemon, name: str, tmp_path: Path
) -> None:
    (tmp_path / "code").write_text("one")
    mount = ("-v", f"{tmp_path}:/src:z", "--tmpfs", "/scratch:size=1m", "--name", name)
    daemon.docker("run", "-d", *mount, "busybox", "sleep", "1000").ok()
    assert daemon.docker("exec", name, "cat", "/src/code").ok() == "one"
    (tmp_path / "code").write_text("two")
    assert daemon.docker("exec", name, "cat", "/src/code").ok() == "two"
    daemon.docker("exec", name, "sh", "-c", "echo three >/src/code; echo x >/scratch/left").ok()
    assert (tmp_path / "code").read_text() == "three\n"
    full = daemon.docker("exec", name, "dd", "if=/dev/zero", "of=/scratch/big", "bs=1M", "count=2")
    assert full.code == 1 and "No space left" in full.errors
    daemon.docker("restart", "-t", "0", name).ok()
    assert daemon.docker("exec", name, "ls", "/scratch").ok() == ""


def test_keys_of_mount_and_prune(daemon: LabDaemon, name: str) -> None:
    keys = f"type=volume,src={name},dst=/v,volume-label=k=v,volume-driver=local,volume-opt=type=tmpfs"
    keys += ",volume-opt=device=tmpfs,volume-opt=o=size=1m"
    assert "tmpfs" in run(daemon, "--mount", keys, "busybox", "grep", " /v ", "/proc/mounts")
    view = daemon.api("GET", f"/volumes/{name}").json
    assert view["Labels"] == {"k": "v"} and view["Options"]["o"] == "size=1m"
    daemon.docker("create", "--name", name, "-v", "/anonymous", "busybox").ok()
    (point,) = daemon.api("GET", f"/containers/{name}/json").json["Mounts"]
    found = daemon.docker("volume", "ls", "-q", "-f", "dangling=true", "-f", "label=k=v").ok()
    assert found == name
    daemon.docker("rm", name).ok()
    pruned = daemon.api("POST", "/volumes/prune", filters={"label!": ["k=v"]}).json
    assert pruned["VolumesDeleted"] == [point["Name"]]
    assert daemon.api("POST", "/volumes/prune", filters={"all": ["1"], "label": ["k=v"]}).json[
        "VolumesDeleted"
    ] == [name]
    assert daemon.docker("system", "df", "-v").code == 0
    updated = daemon.api("PUT", f"/volumes/{name}?version=1", {})
    assert updated.status == 503 and "only valid for cluster volumes" in updated.message


def test_links_that_change_places_lead_nowhere(daemon: LabDaemon, name: str) -> None:
    """While a part of a volume is mounted, and while all of it is exported."""
    run(daemon, "-v", f"{name}:/v", "busybox", "sh", "-c", "mkdir /v/p; touch /v/p/inside")
    swap = "cd /v; while :; do mv p q; ln -s /etc p; rm p; ln -s ../../../../etc p; rm p; mv q p; done"
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sh", "-c", swap).ok()
    seen, refused = 0, 0
    part = f"src={name},dst=/x,volume-subpath=p"
    for _ in range(12):
        look = daemon.docker("run", "--rm", "--mount", part, "busybox", "ls", "/x")
        if look.code == 0:
            assert look.out == "inside"
            seen += 1
        else:
            assert "it leaves it" in look.errors or "it does not exist" in look.errors, look.errors
            refused += 1
        with tarfile.open(fileobj=io.BytesIO(daemon.wherry("volume", "export", name).raw)) as archive:
            names = {member.name.strip("./") for member in archive}
        assert names <= {"", "p", "q", "p/inside", "q/inside"}
    assert seen + refused == 12


@pytest.fixture
def mortal(fresh_daemon: LabDaemon) -> Iterator[LabDaemon]:
    yield fresh_daemon


@pytest.mark.skipif(not os.access(_PYTHON, os.X_OK), reason="the host has no python3 of its own")
def test_sqlite_survives_kills(mortal: LabDaemon) -> None:
    """Of the container, then of the daemon with the container, and of the daemon alone."""
    name, said = secrets.token_hex(4), 0
    box = ("-v", f"{name}:/data", *_HOSTS_PYTHON, "busybox", _PYTHON, "-c")

    def promised() -> int:
        lines = mortal.docker("logs", "--tail", "5", name).out.split()
        return int(lines[-1]) if lines else 0

    for kill in ("container", "both", "daemon"):
        mortal.docker("run", "-d", "--name", name, *box, _WRITER).ok()
        wait_until(lambda least=said: promised() > least + 20, "it writes")
        pid = mortal.api("GET", f"/containers/{name}/json").json["State"]["Pid"]
        if kill != "container":
            mortal.end(signal.SIGKILL)
        if kill != "daemon":
            os.kill(pid, signal.SIGKILL)
        if kill != "container":
            mortal.start()
        if kill == "daemon":
            before = promised()
            wait_until(lambda least=before: promised() > least, "it writes on")
            mortal.docker("kill", name).ok()
        mortal.docker("wait", name).ok()
        said = promised()
        assert int(run(mortal, *box, _CHECK)) >= said
        mortal.docker("rm", "-f", name).ok()
