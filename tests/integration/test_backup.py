"""A backup of a running daemon, restored below another root: everything runs there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from patience import patiently
from registrylab import LabRegistry, registry, seed

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab(shared_daemon: LabDaemon) -> Iterator[LabRegistry]:
    with registry() as made:
        seed(shared_daemon, made, "lib/bb:1")
        yield made


@pytest.fixture
def own() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture(params=["overlay", "vfs"])
def other(request: pytest.FixtureRequest) -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base(), "--storage-driver", request.param)
    try:
        yield daemon
    finally:
        daemon.destroy()


def restore(daemon: LabDaemon, file: Path) -> subprocess.CompletedProcess[bytes]:
    argv = [*daemon.argv(), "--restore", str(file)]
    return subprocess.run(argv, capture_output=True, timeout=patiently(60), check=False)


FIRST = (
    "echo orders > /d/db; echo mine > /own; rm /bin/vi; echo quiet > /anonymous/f; "
    "test -e /again && exit 7; touch /again; echo said"
)


def make_things(daemon: LabDaemon, image: str) -> None:
    daemon.docker("network", "create", "net").ok()
    daemon.docker("volume", "create", "--label", "a=b", "shop").ok()
    daemon.docker("secret", "create", "token", "-", input=b"very secret").ok()
    box = ("run", "--name", "box", "-v", "shop:/d", "-v", "/anonymous", "-e", "KEY=value", image)
    daemon.docker(*box, "sh", "-c", FIRST).ok()
    daemon.docker("commit", "box", "kept:1").ok()
    web = ("run", "-d", "--name", "web", "--network", "net", "--restart", "always", "-v", "shop:/d", "kept:1")
    daemon.docker(*web, "sh", "-c", "while :; do date > /now; date > /d/now; sleep 0.01; done").ok()
    daemon.wherry("create", "--name", "teller", "--secret", "token", image, "cat", "/run/secrets/token").ok()
    mount = "type=image,source=kept:1,target=/m"
    daemon.docker("create", "--name", "looker", "--mount", mount, image, "cat", "/m/own").ok()


def check_things(daemon: LabDaemon, image: str, *, volumes: bool = True) -> None:
    wait_until(lambda: daemon.state_of("web")["Running"])
    assert daemon.docker("exec", "web", "cat", "/own").ok() == "mine"
    shop = daemon.api("GET", "/volumes/shop").json
    assert shop["Labels"] == {"a": "b"} and shop["Mountpoint"].startswith(str(daemon.root))
    orders = daemon.docker("run", "--rm", "-v", "shop:/d", image, "sh", "-c", "cat /d/db || echo none")
    assert orders.ok() == ("orders" if volumes else "none")
    assert daemon.docker("logs", "box").ok() == "said"
    box = daemon.api("GET", "/containers/box/json").json
    assert box["State"]["Status"] == "exited" and "KEY=value" in box["Config"]["Env"]
    for mount in box["Mounts"]:
        assert mount["Source"].startswith(str(daemon.root))
    daemon.docker("cp", "box:/own", str(daemon.base / "own")).ok()
    assert (daemon.base / "own").read_text() == "mine\n"
    assert "D /bin/vi" in daemon.docker("diff", "box").ok().splitlines()
    assert daemon.docker("start", "-a", "looker").ok() == "mine"
    assert daemon.docker("start", "-a", "box").code == 7
    assert "net" in daemon.networks()
    assert daemon.api("GET", "/volumes/shop/snapshots").json["Snapshots"] == []
    assert daemon.wherry("system", "fsck").code == 0


def test_everything_runs_on_another_root(own: LabDaemon, other: LabDaemon) -> None:
    make_things(own, "busybox")
    file = own.base / "backup.tar"
    own.wherry("system", "backup", "--secrets", "-o", str(file)).ok()
    assert own.state_of("web")["Status"] == "running"
    assert own.api("GET", "/volumes/shop/snapshots").json["Snapshots"] == []
    assert file.stat().st_mode & 0o077 == 0
    tags = own.tags()
    own.remove_containers()
    own.end()
    done = restore(other, file)
    assert done.returncode == 0, done.stderr.decode()
    other.start()
    assert other.tags() == tags
    check_things(other, "busybox")
    assert other.docker("start", "-a", "teller").ok() == "very secret"
    again = restore(other, file)
    assert again.returncode == 1 and b"another daemon uses" in again.stderr
    other.remove_containers()
    other.end()
    again = restore(other, file)
    assert again.returncode == 1 and b"cannot restore" in again.stderr


def test_by_reference_and_without_volumes(own: LabDaemon, other: LabDaemon, lab: LabRegistry) -> None:
    """What a registry has is fetched from there; what was made here is in the backup."""
    image = f"{lab.host}/lib/bb:1"
    own.docker("pull", image).ok()
    own.docker("rmi", "busybox").ok()
    make_things(own, image)
    whole, file = own.base / "whole.tar", own.base / "backup.tar"
    own.wherry("system", "backup", "-o", str(whole)).ok()
    own.wherry("system", "backup", "--images", "reference", "--no-volumes", "-o", str(file)).ok()
    assert file.stat().st_size < whole.stat().st_size - 1_000_000
    own.remove_containers()
    own.end()
    done = restore(other, file)
    assert done.returncode == 0, done.stderr.decode()
    assert b"not in the backup: the data of volume shop" in done.stderr
    other.start()
    check_things(other, image, volumes=False)
    secret = other.docker("start", "-a", "teller")
    assert secret.code == 1 and "secrets.key does not exist" in secret.errors


@pytest.mark.parametrize("part", [0.2, 0.6, 0.9, 0.999])
def test_half_a_backup_is_none(own: LabDaemon, part: float) -> None:
    make_things(own, "busybox")
    file = own.base / "backup.tar"
    own.wherry("system", "backup", "-o", str(file)).ok()
    os.truncate(file, int(file.stat().st_size * part))
    other = LabDaemon(new_base())
    try:
        done = restore(other, file)
        assert done.returncode == 1, done.stderr.decode()
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        other.start()
        assert (other.containers(), other.volumes(), other.tags()) == ([], set(), set())
    finally:
        other.destroy()


def test_what_cannot_be_asked_for(own: LabDaemon) -> None:
    asked = own.api("GET", "/system/backup", images="some")
    assert (asked.status, asked.message) == (400, "invalid images 'some': known are whole and reference")
    file = own.base / "no-backup"
    file.write_bytes(b"x" * 2048)
    other = LabDaemon(new_base())
    try:
        done = restore(other, file)
        assert done.returncode == 1 and b"cannot re" in done.stderr, done.stderr.decode()
    finally:
        other.destroy()
