"""The daemon dies amid a pull or a push, or the disk is full: the next try goes on and ends right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from daemonlab import LabDaemon, new_base
from registrylab import LabRegistry, registry, seed, skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]

LAYERS = 3
LAYER = 6 << 20


@pytest.fixture(scope="module")
def lab(shared_daemon: LabDaemon) -> Iterator[LabRegistry]:
    files = [(f"/data{number}", os.urandom(LAYER)) for number in range(LAYERS)]
    with registry() as made:
        seed(shared_daemon, made, "big/image:1", *files)
        yield made


@pytest.fixture
def own() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        yield daemon.start()
    finally:
        daemon.destroy()


def killed_at(daemon: LabDaemon, moment: float, *argv: str) -> bool:
    """Run a command, kill the daemon ``moment`` seconds later, start it again; was the command done?"""
    with daemon.docker_process(*argv) as client:
        gone = threading.Event()
        threading.Thread(target=lambda: (client.wait(), gone.set()), daemon=True).start()
        ended = gone.wait(moment)
        daemon.end(signal.SIGKILL)
    daemon.start()
    return ended and client.returncode == 0


def kill_again_and_again(
    daemon: LabDaemon, times: int, argv: tuple[str, ...], check: Callable[[bool], None], span: float
) -> None:
    chance = random.Random(times)
    for _ in range(times):
        check(killed_at(daemon, chance.uniform(0.02, span), *argv))


def leftovers(daemon: LabDaemon) -> list[str]:
    return [path.name for path in (daemon.root / "content/ingest").iterdir() if path.stat().st_size]


def pulls(own: LabDaemon, lab: LabRegistry, times: int) -> None:
    where = f"{lab.host}/big/image:1"
    began = time.monotonic()
    own.docker("pull", where).ok()
    span = time.monotonic() - began
    own.docker("rmi", where).ok()

    def check(ended: bool) -> None:
        if where in own.tags():  # named means whole
            own.docker("run", "--rm", where, "ls", "/data0").ok()
            own.docker("rmi", where).ok()
        else:
            assert not ended

    kill_again_and_again(own, times, ("pull", where), check, span)
    own.docker("pull", where).ok()
    assert own.docker("run", "--rm", where, "sh", "-c", "cat /data* | wc -c").ok() == str(LAYERS * LAYER)
    assert leftovers(own) == []
    answer = own.api("POST", "/system/fsck")
    assert answer.lines[-1] == {"Found": 0, "Failed": 0}, answer.lines


def pushes(own: LabDaemon, lab: LabRegistry, times: int, name: str) -> None:
    source = f"{lab.host}/big/image:1"
    own.docker("pull", source).ok()
    digest = json.loads(own.docker("image", "inspect", source).ok())[0]["Id"]
    with registry() as other:
        number = 0

        def target() -> str:
            return f"{other.host}/{name}/{number}:1"

        def check(ended: bool) -> None:
            nonlocal number
            status, _, headers = other.get(f"/v2/{name}/{number}/manifests/1")
            assert status in (200, 404)
            if status == 200:
                assert headers["Docker-Content-Digest"] == digest
            else:
                assert not ended
            own.docker("push", target()).ok()
            raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target()}")
            assert json.loads(raw)["layers"]
            number += 1

        chance = random.Random(times)
        for _ in range(times):
            own.docker("tag", source, target()).ok()
            check(killed_at(own, chance.uniform(0.02, 0.4), "push", target()))


def test_killed_while_pulling(own: LabDaemon, lab: LabRegistry) -> None:
    pulls(own, lab, 3)


def test_killed_while_pushing(own: LabDaemon, lab: LabRegistry, name: str) -> None:
    pushes(own, lab, 2, name)


@pytest.mark.slow
@pytest.mark.fault("SIGKILL during pulls and pushes", "100 kills")
@pytest.mark.patient(600)
def test_killed_at_fifty_moments(own: LabDaemon, lab: LabRegistry, name: str) -> None:
    pulls(own, lab, 50)
    pushes(own, lab, 50, name)


@pytest.fixture
def small() -> Iterator[LabDaemon]:
    """A daemon whose root has no room for the image."""
    base = new_base()
    (base / "r").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "small", str(base / "r")], check=True)
    daemon = LabDaemon(base)
    try:
        yield daemon.start()
    finally:
        try:
            daemon.destroy()
        finally:
            subprocess.run(["umount", "-l", str(base / "r")], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", str(base)], check=True)


def test_a_full_disk_in_the_middle(small: LabDaemon, lab: LabRegistry) -> None:
    where = f"{lab.host}/big/image:1"
    done = small.docker("pull", where)
    assert done.code == 1
    assert "no space left on device" in done.errors
    assert where in done.errors
    assert small.tags() == set()
    subprocess.run(["mount", "-o", "remount,size=80m", str(small.root)], check=True)
    small.docker("pull", where).ok()
    assert small.docker("run", "--rm", where, "echo", "whole").ok() == "whole"
    assert leftovers(small) == []
