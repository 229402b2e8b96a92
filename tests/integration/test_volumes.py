"""Volumes on a real daemon: named anew while they are in use, mounted while somebody has them open."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until

from wherry.linux import mounts

pytestmark = pytest.mark.kernel


def mounted_below(daemon: LabDaemon) -> list[str]:
    return mounts.mounts_below(daemon.root / "volumes")


def test_rename_while_in_use(daemon: LabDaemon, name: str) -> None:
    old, new = f"{name}-old", f"{name}-new"
    daemon.docker("run", "-d", "--name", name, "-v", f"{old}:/data", "busybox", "sleep", "1000").ok()
    daemon.docker("exec", name, "sh", "-c", "echo kept >/data/file").ok()
    assert daemon.wherry("volume", "rename", old, new).ok() == new
    assert daemon.docker("inspect", "-f", "{{(index .Mounts 0).Name}}", name).ok() == new
    assert daemon.docker("exec", name, "cat", "/data/file").ok() == "kept"
    view = daemon.api("GET", f"/volumes/{new}").json
    assert [(c["Name"], c["Destinations"], c["Status"]) for c in view["Containers"]] == [
        (name, ["/data"], "running")
    ]
    assert view["Containers"][0]["Since"]
    # It starts again with the same data, and the old name is another volume.
    daemon.docker("restart", "-t", "0", name).ok()
    assert daemon.docker("exec", name, "cat", "/data/file").ok() == "kept"
    shared = daemon.docker("run", "--rm", "--volumes-from", name, "busybox", "cat", "/data/file")
    assert shared.ok() == "kept"
    assert daemon.docker("run", "--rm", "-v", f"{old}:/data", "busybox", "ls", "/data").ok() == ""
    refused = daemon.docker("volume", "rm", new)
    assert refused.code == 1 and f"remove {new}: volume is in use - [" in refused.errors
    assert "rename" in daemon.actions(volume=[new])
    assert daemon.api("POST", f"/volumes/{new}/rename", name=old).status == 409
    daemon.docker("rm", "-f", name).ok()
    daemon.docker("volume", "rm", new, old).ok()


def test_mounted_while_somebody_has_it(daemon: LabDaemon, name: str) -> None:
    daemon.docker(
        "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=7", name
    ).ok()
    assert mounted_below(daemon) == []
    for number in (1, 2):
        run = ("run", "-d", "--name", f"{name}-{number}", "-v", f"{name}:/m", "busybox", "sleep", "1000")
        daemon.docker(*run).ok()
    assert len(mounted_below(daemon)) == 1
    daemon.docker("exec", f"{name}-1", "sh", "-c", "echo shared >/m/f").ok()
    assert daemon.docker("exec", f"{name}-2", "sh", "-c", "cat /m/f; stat -c %u /m").ok() == "shared\n7"
    full = daemon.docker("exec", f"{name}-2", "sh", "-c", "head -c 3m /dev/zero >/m/big")
    assert full.code == 1 and "head: standard output" in full.errors
    daemon.docker("rm", "-f", f"{name}-1").ok()
    assert daemon.docker("exec", f"{name}-2", "cat", "/m/f").ok() == "shared"
    daemon.docker("stop", "-t", "0", f"{name}-2").ok()
    wait_until(lambda: mounted_below(daemon) == [], "nobody has it")
    # A copy out of the stopped container sees the volume as well, and leaves nothing mounted.
    assert daemon.docker("cp", f"{name}-2:/m/.", "-").code == 0
    wait_until(lambda: mounted_below(daemon) == [])
    assert daemon.docker("system", "df", "-v").code == 0
    daemon.docker("rm", f"{name}-2").ok()
    daemon.docker("volume", "rm", name).ok()


def test_a_directory_of_the_host(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "hosts-own").write_text("mine")
    options = ("-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind")
    daemon.docker("volume", "create", *options, name).ok()
    run = ("run", "--rm", "-v", f"{name}:/m", "busybox")
    assert daemon.docker(*run, "sh", "-c", "cat /m/hosts-own; echo new >/m/new").ok() == "mine"
    assert (tmp_path / "new").read_text() == "new\n"
    daemon.docker("volume", "rm", name).ok()
    # The volume is gone, what it showed is not.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hosts-own", "new"]
    gone = tmp_path / "gone"
    options = ("-o", "type=none", "-o", f"device={gone}", "-o", "o=bind")
    daemon.docker("volume", "create", *options, name).ok()
    failed = daemon.docker(*run, "true")
    assert failed.code == 127 and "_data': failed to mount local volume" in failed.errors  # as with Docker
    assert str(gone) in failed.errors and "no such file or directory" in failed.errors
    assert mounted_below(daemon) == []
    refused = daemon.docker("volume", "create", "-o", "size=1g")
    assert refused.code == 1 and "quota size requested but no quota support" in refused.errors


def test_counts_survive_the_daemon(mortal: LabDaemon, name: str) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs")
    for volume in ("stays", "goes"):
        mortal.docker("volume", "create", *options, volume).ok()
        run = ("run", "-d", "--name", f"{name}-{volume}", "-v", f"{volume}:/m", "busybox", "sleep", "1000")
        mortal.docker(*run).ok()
    mortal.docker("exec", f"{name}-stays", "touch", "/m/f").ok()
    ending = mortal.pid_of(f"{name}-goes")
    mortal.end(signal.SIGKILL)
    os.kill(ending, signal.SIGKILL)
    assert len(mounted_below(mortal)) == 2
    mortal.start()
    wait_until(lambda: len(mounted_below(mortal)) == 1, "what nobody has open is unmounted")
    assert mortal.docker("exec", f"{name}-stays", "ls", "/m").ok() == "f"
    mortal.docker("rm", "-f", f"{name}-stays").ok()
    wait_until(lambda: mounted_below(mortal) == [])


def test_listing_by_driver(daemon: LabDaemon, name: str) -> None:
    daemon.docker("volume", "create", name).ok()
    listed = ("volume", "ls", "-q", "--filter", f"name={name}", "--filter")
    assert daemon.docker(*listed, "driver=local").ok() == name
    assert daemon.docker(*listed, "driver=other").ok() == ""
    assert daemon.docker(*listed, "driver=other", "--filter", "driver=local").ok() == name
