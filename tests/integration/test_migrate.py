"""``wherry migrate docker`` on roots that Docker Engines wrote (``tests/data/docker``); ``export-all``."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon

ROOTS = Path(__file__).resolve().parents[1] / "data" / "docker"
NAMES = ("20.10", "28-overlay2", "28-containerd")
CONTAINERS = {"web", "side", "halted", "never", "nameless", "orphan"}
COMES_BACK = {"web", "side"}


def unpacked(name: str, place: Path) -> Path:
    root = place / name
    root.mkdir()
    argv = [
        "tar",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-xpzf",
        str(ROOTS / f"{name}.tar.gz"),
    ]
    subprocess.run([*argv, "-C", str(root)], check=True)
    return root


def fingerprint(root: Path) -> str:
    """Of every file: name, kind, mode, owner, time, content."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found.update(
            f"{path} {status.st_mode} {status.st_uid} {status.st_gid} {status.st_mtime_ns}\n".encode()
        )
        if stat.S_ISREG(status.st_mode):
            found.update(path.read_bytes())
    return found.hexdigest()


@pytest.fixture(params=NAMES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpacked(request.param, tmp_path)


@pytest.fixture
def emptied(daemon: LabDaemon) -> Iterator[LabDaemon]:
    """The daemon, and afterwards nothing of what was taken over."""
    before = daemon.tags()
    try:
        yield daemon
    finally:
        daemon.docker("rm", "-f", "-v", *CONTAINERS)
        daemon.docker("network", "rm", "back")
        daemon.docker("volume", "rm", "stored", "memory")
        if made := sorted(daemon.tags() - before):
            daemon.docker("rmi", "-f", *made)


def file_of(daemon: LabDaemon, container: str, path: str) -> tarfile.TarInfo:
    done = daemon.docker("cp", f"{container}:{path}", "-")
    assert not done.code, done.errors
    with tarfile.open(fileobj=io.BytesIO(done.raw)) as tar:
        found = tar.next()
    assert found is not None
    return found


def test_everything_comes_over_and_nothing_of_the_source_changes(emptied: LabDaemon, root: Path) -> None:
    daemon, before = emptied, fingerprint(root)
    shown = daemon.wherry("migrate", "docker", "--data-root", str(root), "--dry-run")
    assert not shown.code, shown.errors
    lines = [line.replace("docker.io/library/", "") for line in shown.out.splitlines()]
    for line in ("image app:1", "image registry.example/team/app:stable", "container web", "network back"):
        assert line in lines
    assert not CONTAINERS & set(daemon.docker("ps", "-a", "--format", "{{.Names}}").out.split())

    done = daemon.wherry("migrate", "docker", "--data-root", str(root), "--start")
    assert not done.code, done.out + done.errors
    assert fingerprint(root) == before
    check_images(daemon)
    check_definitions(daemon)
    check_volumes(daemon)
    running = set(daemon.docker("ps", "--format", "{{.Names}}").out.split())
    assert running & CONTAINERS == COMES_BACK

    again = daemon.wherry("migrate", "docker", "--data-root", str(root))
    assert not again.code, again.out
    assert "container web: is there already" in again.out and "volume stored: is there already" in again.out


def check_images(daemon: LabDaemon) -> None:
    assert {"tiny:1", "app:1", "registry.example/team/app:stable"} <= daemon.tags()
    app = json.loads(daemon.docker("inspect", "app:1").out)[0]
    assert app["Config"]["Labels"] == {"built": "yes"} and "MORE=1" in app["Config"]["Env"]
    assert len(app["RootFS"]["Layers"]) == 3
    kept = file_of(daemon, "never", "/data/kept")
    assert (kept.uid, kept.gid, kept.mode & 0o7777, kept.size) == (5, 6, 0o4755, 1500)
    assert file_of(daemon, "never", "/data/soft").linkname == "kept"
    assert file_of(daemon, "never", "/gone/new").size == 3
    assert file_of(daemon, "nameless", "/file").size == len("of the context\n")
    for removed in ("/data/removed", "/gone/inside"):
        assert daemon.docker("cp", f"never:{removed}", "-").code
    assert file_of(daemon, "never", "/data/" + "long" * 40).size == len("a long name")


def check_definitions(daemon: LabDaemon) -> None:
    names = ("web", "side", "halted", "never", "orphan")
    web, side, halted, never, orphan = json.loads(daemon.docker("inspect", *names).out)
    assert "MODE=web" in web["Config"]["Env"] and web["Config"]["Image"] == "app:1"
    assert web["HostConfig"]["Memory"] == 32 << 20 and web["HostConfig"]["CapAdd"] == ["CAP_NET_ADMIN"]
    assert web["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    endpoint = web["NetworkSettings"]["Networks"]["back"]
    assert endpoint["IPAddress"] == "10.231.7.9" and "www" in endpoint["Aliases"]
    mounts = {point["Destination"]: point for point in web["Mounts"]}
    assert mounts["/stored"]["Name"] == "stored" and not mounts["/host"]["RW"]
    assert len(mounts["/anonymous"]["Name"]) == 64
    assert side["HostConfig"]["NetworkMode"] == f"container:{web['Id']}"
    assert halted["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18081"}]}
    assert never["Config"]["Hostname"] == "chosen" and never["Config"]["Labels"]["one"] == "two"
    assert never["HostConfig"]["Links"] == ["/halted:/never/friend"]
    assert orphan["Config"]["Image"].startswith("docker-migrated:")
    back = json.loads(daemon.docker("network", "inspect", "back").out)[0]
    assert back["Internal"] and back["Labels"] == {"of": "net"}
    assert back["IPAM"]["Config"][0]["Subnet"] == "10.231.7.0/24"
    assert back["IPAM"]["Config"][0]["IPRange"] == "10.231.7.128/25"


def check_volumes(daemon: LabDaemon) -> None:
    stored = json.loads(daemon.docker("volume", "inspect", "stored").out)[0]
    assert stored["Labels"] == {"of": "volume"}
    place = Path(stored["Mountpoint"])
    file = place / "sub" / "file"
    assert file.read_text() == "kept in a volume\n" and os.getxattr(file, "user.mark") == b"x"
    assert (file.stat().st_uid, file.stat().st_gid) == (1000, 1001)
    assert file.samefile(place / "again") and os.readlink(place / "link") == "/nowhere"
    assert stat.S_IMODE((place / "sub").stat().st_mode) == 0o700
    memory = json.loads(daemon.docker("volume", "inspect", "memory").out)[0]
    assert memory["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


def test_a_dockerd_that_runs_is_left_alone(emptied: LabDaemon, tmp_path: Path) -> None:
    root = unpacked("28-overlay2", tmp_path)
    with (root / "volumes" / "metadata.db").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = emptied.wherry("migrate", "docker", "--data-root", str(root), "--dry-run")
    assert done.code == 1 and "dockerd still runs" in done.errors


def test_a_layer_that_has_changed_is_not_taken_for_what_it_was(emptied: LabDaemon, tmp_path: Path) -> None:
    root = unpacked("28-overlay2", tmp_path)
    (changed,) = (path for path in (root / "overlay2").glob("*/diff/file"))
    changed.write_text("of the c0ntext\n")
    done = emptied.wherry("migrate", "docker", "--data-root", str(root))
    assert done.code == 1 and "has changed on the disk" in done.out
    assert "app:1" not in emptied.tags()
    assert "volume stored: done" in done.out, "the rest is taken over all the same"


@pytest.mark.parametrize("damage", ["volumes/metadata.db", "network/files/local-kv.db"])
def test_a_broken_database_is_named(emptied: LabDaemon, tmp_path: Path, damage: str) -> None:
    root = unpacked("28-overlay2", tmp_path)
    os.truncate(root / damage, 5000)
    done = emptied.wherry("migrate", "docker", "--data-root", str(root), "--dry-run")
    assert done.code == 1 and damage in done.errors and "Traceback" not in done.errors


def test_what_is_no_root_of_docker(daemon: LabDaemon, tmp_path: Path) -> None:
    done = daemon.wherry("migrate", "docker", "--data-root", str(tmp_path))
    assert done.code == 1 and "is not the root of a Docker Engine" in done.errors


def test_out_again_by_archives(emptied: LabDaemon, fresh_daemon: LabDaemon, tmp_path: Path) -> None:
    root = unpacked("28-overlay2", tmp_path)
    assert not emptied.wherry("migrate", "docker", "--data-root", str(root), "--start").code
    out = tmp_path / "out"
    done = emptied.wherry("export-all", str(out))
    assert not done.code, done.errors
    again = emptied.wherry("export-all", str(out))
    assert again.code == 1 and "is not empty" in again.errors
    emptied.docker("rm", "-f", "-v", *CONTAINERS)
    emptied.docker("network", "rm", "back")

    environment = {**os.environ, "HOME": str(fresh_daemon.home)}
    script = ["sh", str(out / "restore.sh"), str(fresh_daemon.socket)]
    restored = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    try:
        web = json.loads(fresh_daemon.docker("inspect", "web").out)[0]
        assert web["State"]["Running"] and web["HostConfig"]["Memory"] == 32 << 20
        assert web["NetworkSettings"]["Networks"]["back"]["IPAddress"] == "10.231.7.9"
        place = Path(json.loads(fresh_daemon.docker("volume", "inspect", "stored").out)[0]["Mountpoint"])
        assert (place / "sub" / "file").read_text() == "kept in a volume\n"
        assert os.getxattr(place / "sub" / "file", "user.mark") == b"x"
    finally:
        fresh_daemon.docker("rm", "-f", "-v", *CONTAINERS)
