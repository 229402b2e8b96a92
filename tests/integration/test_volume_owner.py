"""``owner=match``: files belong to the right user on both sides of a mount."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from daemonlab import LabDaemon

from wherry.linux.idmap import swap

pytestmark = pytest.mark.kernel


def test_a_map_covers_every_id_once() -> None:
    for one, other in ((0, 0), (0, 1000), (1000, 0), (5, 6), (1000, 4_294_967_294)):
        lines = swap(one, other)
        assert sum(count for _, _, count in lines) == (1 << 32) - 1
        mapped = {inside: outside for inside, outside, count in lines if count == 1}
        assert one == other or (mapped[one], mapped[other]) == (other, one)
        for column in (0, 1):
            starts = sorted((line[column], line[2]) for line in lines)
            assert all(a + n == b for (a, n), (b, _) in pairwise(starts))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "mine").write_text("mine")
    (directory / "roots").write_text("root's")
    for path in (directory, directory / "mine"):
        os.chown(path, 1234, 2345)
    return directory


@pytest.mark.parametrize(("user", "inside"), [("0:0", "0:0"), ("77:88", "77:88"), ("1234:2345", "1234:2345")])
def test_a_bind(daemon: LabDaemon, source: Path, user: str, inside: str) -> None:
    script = "stat -c %u:%g /s /s/mine; echo new >/s/new; mkdir /s/d; stat -c %u:%g /s/new"
    mount = f"type=bind,src={source},dst=/s,owner=match"
    seen = daemon.wherry("run", "--rm", "-u", user, "--mount", mount, "busybox", "sh", "-c", script).ok()
    assert seen.split() == [inside] * 3
    for name in ("new", "d", "mine"):
        status = (source / name).stat()
        assert (status.st_uid, status.st_gid) == (1234, 2345)
    assert (source / "roots").stat().st_uid == 0


def test_a_volume_and_a_part_of_it(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", "mkdir /v/p; chown 9:9 /v/p").ok()
    whole = f"src={name},dst=/v,owner=match"
    part = f"src={name},dst=/p,volume-subpath=p,owner=match"
    script = "touch /v/a /p/b && stat -c %u:%g /v /v/a /p /p/b"
    run = ("run", "--rm", "-u", "5:6", "--mount", whole, "--mount", part, "busybox", "sh", "-c", script)
    assert daemon.wherry(*run).ok().split() == ["5:6"] * 4
    plain = ("run", "--rm", "-v", f"{name}:/v", "busybox", "stat", "-c", "%u:%g", "/v/a", "/v/p/b")
    assert daemon.docker(*plain).ok().split() == ["0:0", "9:9"]
    daemon.docker("volume", "rm", name).ok()


def test_refused_by_name(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    mount = "type=bind,src=/proc/sys,dst=/s,owner=match"
    failed = daemon.wherry("run", "--rm", "-u", "5", "--mount", mount, "busybox", "true")
    assert failed.code == 125
    assert (
        "the file system (proc), or one mounted below it, does not support idmapped mounts" in failed.errors
    )
    bad = daemon.wherry(
        "run", "--rm", "--mount", f"type=bind,src={tmp_path},dst=/s,owner=me", "busybox", "true"
    )
    assert bad.code == 125 and "invalid value for owner: me" in bad.errors
    wrong = {"Type": "tmpfs", "Target": "/t", "Owner": "match"}
    body = {"Image": "busybox", "HostConfig": {"Mounts": [wrong]}}
    answer = daemon.api("POST", "/containers/create", body)
    assert answer.status == 400 and "invalid owner" in answer.message
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    spec = f"type=bind,src={tmp_path},dst=/s,owner=match"
    running = daemon.wherry("update", "--mount-add", spec, name)
    assert running.code == 1 and "owner=match" in running.errors
