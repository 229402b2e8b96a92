"""The daemon is killed at random moments of the lives of volumes: none is lost, no mount is too many."""

from __future__ import annotations

import http.client
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon
from patience import patiently

from wherry.linux import mounts

pytestmark = pytest.mark.kernel

LOST = (OSError, http.client.HTTPException, ValueError)
_TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


class Life:
    """What one client knows: ``there`` and ``gone`` are acknowledged, ``open`` may be either."""

    def __init__(self, daemon: LabDaemon, seed: int) -> None:
        self.daemon = daemon
        self.random = random.Random(seed)
        self.there: dict[str, str] = {}
        self.snapshots: dict[str, set[str]] = {}
        self.gone: set[str] = set()
        self.open: set[str] = set()
        self.number = 0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.daemon.api(method, path, body)
        assert answer.status < 500, (method, path, answer.body)
        return answer

    def work(self) -> None:
        """One thing after the other, until the daemon dies."""
        try:
            while True:
                self.random.choice((self.create, self.create, self.snapshot, self.remove, self.mount))()
        except LOST:
            return

    def create(self) -> None:
        self.number += 1
        name = f"v{self.number}"
        self.open.add(name)
        made = self.ask("POST", "/volumes/create", {"Name": name}).json
        (Path(made["Mountpoint"]) / "file").write_text(name)
        self.open.discard(name)
        self.there[name] = made["Mountpoint"]
        self.snapshots[name] = set()

    def snapshot(self) -> None:
        if self.there:
            name = self.random.choice(sorted(self.there))
            label = f"s{self.random.getrandbits(32):x}"
            if self.ask("POST", f"/volumes/{name}/snapshots", {"Name": label}).status == 201:
                self.snapshots[name].add(label)

    def remove(self) -> None:
        if self.there:
            name = self.random.choice(sorted(self.there))
            del self.there[name]
            self.open.add(name)
            assert self.ask("DELETE", f"/volumes/{name}").status == 204
            self.open.discard(name)
            self.gone.add(name)

    def mount(self) -> None:
        """Start the container that has a volume mounted, or end it."""
        state = self.ask("GET", "/containers/box/json").json["State"]["Running"]
        self.ask("POST", f"/containers/box/{'kill' if state else 'start'}")

    def check(self) -> None:
        """Against a daemon that has just started."""
        daemon = self.daemon
        volumes = {v["Name"]: v for v in daemon.api("GET", "/volumes").json["Volumes"]}
        for name in self.there:
            assert (Path(volumes[name]["Mountpoint"]) / "file").read_text() == name
            kept = daemon.api("GET", f"/volumes/{name}/snapshots").json["Snapshots"]
            assert self.snapshots[name] <= {s["Name"] for s in kept}
            beside = Path(volumes[name]["Mountpoint"]).parent / "snapshots"
            files = list(beside.glob("*/_data/file")) if beside.is_dir() else []
            assert len(files) == len(kept) and all(f.read_text() == name for f in files)
        assert not self.gone & volumes.keys()
        directories = {p.name for p in (daemon.root / "volumes").iterdir()}
        assert directories == {daemon.api("GET", f"/volumes/{name}").json["Id"] for name in volumes}
        for name in self.open & volumes.keys():
            assert daemon.api("DELETE", f"/volumes/{name}").status == 204
        self.open.clear()
        box = daemon.api("GET", "/containers/box/json").json
        mounted = mounts.mounts_below(daemon.root / "volumes")
        assert len(mounted) == int(box["State"]["Running"]), (mounted, box["State"])
        users = daemon.api("GET", "/volumes/mounted").json["Containers"]
        assert [user["Id"] for user in users] == [box["Id"]]


def rounds(daemon: LabDaemon, count: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    life = Life(daemon, seed)
    life.ask("POST", "/volumes/create", {"Name": "mounted", "DriverOpts": _TMPFS})
    box = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["mounted:/m"]}}
    assert life.ask("POST", "/containers/create?name=box", box).status == 201
    for _ in range(count):
        failed: list[BaseException] = []
        worker = threading.Thread(target=guarded, args=(life.work, failed))
        worker.start()
        threading.Event().wait(life.random.uniform(0.0, 0.25))
        daemon.end(signal.SIGKILL)
        worker.join(patiently(30))
        assert not failed, failed
        daemon.start()
        life.check()
    daemon.remove_containers()
    assert mounts.mounts_below(daemon.root / "volumes") == []


def guarded(work: Callable[[], None], failed: list[BaseException]) -> None:
    try:
        work()
    except BaseException as e:
        failed.append(e)


def test_a_few_kills(fresh_daemon: LabDaemon) -> None:
    rounds(fresh_daemon, 5)


@pytest.mark.slow
@pytest.mark.fault("SIGKILL during work on volumes", "100 kills")
@pytest.mark.patient(600)
def test_a_hundred_kills(fresh_daemon: LabDaemon) -> None:
    rounds(fresh_daemon, 100)
