"""Snapshots, clones, exports and schedules of volumes, through wherry's own client on a real daemon."""

from __future__ import annotations

import io
import json
import signal
import sqlite3
import tarfile
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel


def write(daemon: LabDaemon, volume: str, script: str) -> str:
    return daemon.docker("run", "--rm", "-v", f"{volume}:/v", "-w", "/v", "busybox", "sh", "-c", script).ok()


def test_snapshot_restore_clone(daemon: LabDaemon, name: str) -> None:
    write(daemon, name, "echo one >f; mkdir d; echo x >d/x; chown 7:8 d")
    assert daemon.wherry("volume", "snapshot", "create", name, "first").ok() == "first"
    write(daemon, name, "echo two >f; rm -r d; echo n >new")
    listed = daemon.wherry("volume", "snapshot", "ls", name).ok()
    assert "first" in listed and "manual" in listed
    changes = daemon.wherry("volume", "diff", name, "first").ok().splitlines()
    assert changes == ["D /d", "C /f", "A /new"]
    assert daemon.wherry("volume", "clone", name, f"{name}-now").ok() == f"{name}-now"
    assert daemon.wherry("volume", "clone", "--snapshot", "first", name, f"{name}-old").code == 0
    assert write(daemon, f"{name}-old", "cat f; stat -c %u:%g d; cat d/x") == "one\n7:8\nx"
    assert write(daemon, f"{name}-now", "cat f; ls") == "two\nf\nnew"
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sleep", "1000").ok()
    refused = daemon.wherry("volume", "snapshot", "restore", name, "first")
    assert refused.code == 1 and "a running container has it open" in refused.errors
    daemon.docker("rm", "-f", name).ok()
    done = daemon.wherry("volume", "snapshot", "restore", name, "first")
    assert done.ok() == name and "The previous data is snapshot before-first-" in done.errors
    assert write(daemon, name, "cat f d/x; ls") == "one\nx\nd\nf"
    quiet = daemon.wherry("volume", "snapshot", "ls", "-q", name).ok().splitlines()
    assert quiet[0] == "first" and quiet[1].startswith("before-first-")
    assert daemon.wherry("volume", "snapshot", "rm", name, *quiet).ok().splitlines() == quiet
    missing = daemon.wherry("volume", "snapshot", "rm", name, "first")
    assert missing.code == 1 and f"no such snapshot of volume {name}: first" in missing.errors
    actions = daemon.actions(volume=[name])
    assert [a for a in actions if "snapshot" in a or a == "restore"] == [
        "snapshot", "restore", "snapshot-remove", "snapshot-remove",
    ]  # fmt: skip


def test_a_frozen_snapshot_is_of_one_moment(daemon: LabDaemon, name: str) -> None:
    """The writer keeps two files equal; a snapshot without a freeze may see them apart."""
    script = "n=0; while :; do n=$((n+1)); echo $n >/v/a; echo $n >/v/b; done"
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sh", "-c", script).ok()
    wait_until(lambda: daemon.docker("exec", name, "test", "-s", "/v/b").code == 0)
    daemon.wherry("volume", "snapshot", "create", "--freeze", name, "still").ok()
    before = daemon.docker("exec", name, "cat", "/v/a").ok()
    wait_until(lambda: daemon.docker("exec", name, "cat", "/v/a").ok() not in ("", before), "it runs on")
    assert daemon.state_of(name)["Status"] == "running"
    daemon.docker("rm", "-f", name).ok()
    archive = daemon.wherry("volume", "export", "--snapshot", "still", name)
    with tarfile.open(fileobj=io.BytesIO(archive.raw)) as tar:
        texts = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    a, b = (int(texts[f"./{n}"] or 0) for n in "ab")
    # The shell truncates before it writes: one of them may be empty in any one moment.
    assert a == b or a == b + 1 or 0 in (a, b)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.zst"])
def test_export_and_import(daemon: LabDaemon, name: str, tmp_path: Path, ending: str) -> None:
    write(daemon, name, "echo text >f; ln -s f link; ln f hard; mkfifo p; mkdir d; chown 5:6 d; chmod 1711 d")
    archive = tmp_path / f"out.{ending}"
    assert daemon.wherry("volume", "export", "-o", str(archive), name).code == 0
    magic = {"tar": b"./", "tar.gz": b"\x1f\x8b", "tar.zst": b"\x28\xb5\x2f\xfd"}[ending]
    assert archive.read_bytes().startswith(magic)
    assert daemon.wherry("volume", "import", "--label", "a=b", f"{name}-2", str(archive)).ok() == f"{name}-2"
    assert daemon.docker("volume", "inspect", "-f", "{{.Labels.a}}", f"{name}-2").ok() == "b"
    look = "cat f; readlink link; test f -ef hard && echo same; stat -c '%u:%g %a' d; stat -c %F p"
    assert write(daemon, f"{name}-2", look) == "text\nf\nsame\n5:6 1711\nfifo"
    refused = daemon.wherry("volume", "import", f"{name}-2", str(archive))
    assert refused.code == 1 and "there is such a volume already" in refused.errors
    merged = daemon.wherry("volume", "import", "--merge", f"{name}-2", "-", input=archive.read_bytes())
    assert merged.ok() == f"{name}-2"
    # Half an archive makes no volume.
    content = archive.read_bytes()
    half = daemon.wherry(
        "volume", "import", f"{name}-3", "-", input=content[: 700 if ending == "tar" else len(content) // 2]
    )
    assert half.code == 1 and f"cannot import {name}-3" in half.errors
    assert f"{name}-3" not in daemon.volumes()
    unknown = daemon.api("GET", f"/volumes/{name}/export", compression="rar")
    assert unknown.status == 400 and "rar" in unknown.message


def test_copies_of_parts_and_sizes(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "file").write_text("mine")
    daemon.docker("volume", "create", name).ok()
    assert daemon.wherry("volume", "cp", str(tmp_path / "up"), f"{name}:/").code == 0
    assert write(daemon, name, "cat up/file; ln -s /etc up/out; head -c 100000 /dev/zero >up/big") == "mine"
    assert daemon.wherry("volume", "cp", f"{name}:/up/file", str(tmp_path / "down")).code == 0
    assert (tmp_path / "down").read_text() == "mine"
    # A link of the volume's leads nowhere outside of it.
    out = daemon.wherry("volume", "cp", f"{name}:/up/out/hostname", str(tmp_path / "host"))
    assert out.code == 1 and "Could not find the file" in out.errors and not (tmp_path / "host").exists()
    rows = daemon.wherry("volume", "du", name).ok().splitlines()
    assert rows[0].split() == ["SIZE", "ENTRIES", "PATH"]
    assert [row.split()[1:] for row in rows[1:]] == [["4", "/"], ["4", "/up"]]
    assert daemon.wherry("volume", "cp", f"{name}:/none", str(tmp_path)).code == 1


def test_a_schedule_outlives_the_daemon(fresh_daemon: LabDaemon) -> None:
    daemon = fresh_daemon
    too_often = daemon.wherry("volume", "create", "--snapshot-every", "2s", "data")
    assert too_often.code == 1 and "at the most one snapshot every 10 seconds" in too_often.errors
    daemon.wherry("volume", "schedule", "--every", "1h", "--keep", "2", "data").ok()
    assert daemon.wherry("volume", "schedule", "data").ok().startswith("every 3600 s, 2 kept, next at ")

    def names() -> list[str]:
        return [s["Name"] for s in daemon.api("GET", "/volumes/data/snapshots").json["Snapshots"]]

    made: list[str] = []
    for _ in range(3):
        daemon.end(signal.SIGKILL)
        with sqlite3.connect(daemon.root / "wherry.db") as db:  # an hour later
            db.execute("UPDATE volume_schedules SET due = 1")
        db.close()
        daemon.start()
        before = set(made)
        wait_until(lambda before=before: set(names()) - before, "what was due is made")
        made += [n for n in names() if n not in made]
    wait_until(lambda: names() == made[-2:], "the oldest goes")
    (newest,) = daemon.api("GET", "/volumes/data/snapshots").json["Snapshots"][-1:]
    assert newest["Origin"] == "schedule"
    daemon.wherry("volume", "schedule", "--rm", "data").ok()
    assert json.loads(daemon.api("GET", "/volumes/data/snapshots").body)["Schedule"] is None
