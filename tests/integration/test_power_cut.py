"""The power goes at random moments: the store is sound afterwards, and nothing that was answered is
missing."""

from __future__ import annotations

import http.client
import io
import json
import random
import signal
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from patience import patiently
from powercut import Disk

pytestmark = pytest.mark.kernel
LOST = (OSError, http.client.HTTPException, ValueError)


class Cut:
    """A daemon on a disk of its own."""

    def __init__(self) -> None:
        base = new_base()
        self.daemon = LabDaemon(base)
        self.disk = Disk(base / "image", base / "r", size=256 << 20)
        self.disk.mount()
        self.powered = True

    def cut(self) -> None:
        """Disk first, then everybody who ran."""
        self.powered = False
        self.disk.cut()
        self._revive()

    def _revive(self) -> None:
        self.daemon.end(signal.SIGKILL)
        self._kill()
        self.disk.unmount()
        self.disk.swap()
        subprocess.run(["rm", "-rf", str(self.daemon.run)], check=True)
        self.disk.check()
        self.disk.mount()
        self.powered = True

    def _kill(self) -> None:
        def left() -> list[int]:
            pids = self.daemon.processes()
            for cgroup in self.daemon._cgroup_directories():
                pids += [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
            return pids

        def ended() -> bool:
            found = left()
            for pid in found:
                subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
            return not found

        wait_until(ended, "everything to end")
        for mount in reversed(self.daemon._mounts()):
            if mount != str(self.daemon.root):
                subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        try:
            if not self.powered:
                self._revive()  # What of the daemon is on the host is told by its database.
            self.daemon.destroy()
        finally:
            self.disk.unmount()
            subprocess.run(["rm", "-rf", str(self.daemon.base)], check=True)


@pytest.fixture
def cut() -> Iterator[Cut]:
    made = Cut()
    try:
        yield made
    finally:
        made.close()


class Life:
    """What clients know: what was answered, and is there or is gone."""

    def __init__(self, daemon: LabDaemon, seed: int) -> None:
        self.daemon, self.random = daemon, random.Random(seed)
        self.lock = threading.Lock()
        self.number = 0
        self.there: dict[str, dict[str, Any]] = {kind: {} for kind in ("volume", "container", "image", "tag")}
        self.there |= {"network": {}, "secret": {}, "snapshot": {}}
        self.gone: dict[str, set[str]] = {kind: set() for kind in self.there}

    def name(self) -> str:
        with self.lock:
            self.number += 1
            return f"n{self.number}"

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.daemon.api(method, path, body, **query)
        if answer.status >= 500:
            raise OSError(answer.body)  # The disk is off.
        return answer

    def pick(self, kind: str) -> str | None:
        with self.lock:
            names = sorted(self.there[kind])
            return self.random.choice(names) if names else None

    def forget(self, kind: str, name: str) -> Any:
        with self.lock:
            return self.there[kind].pop(name, None)

    def work(self, seed: int) -> None:
        own = random.Random(seed)
        try:
            while True:
                own.choice(self.deeds())()
        except LOST:
            return

    def deeds(self) -> list[Callable[[], None]]:
        made = [self.volume, self.snapshot, self.container, self.run, self.image, self.tag, self.commit]
        return [*made, self.network, self.secret, self.remove_volume, self.remove_container, self.rename]

    def volume(self) -> None:
        name = self.name()
        assert self.ask("POST", "/volumes/create", {"Name": name, "Labels": {"of": name}}).status == 201
        self.there["volume"][name] = name

    def snapshot(self) -> None:
        name = self.pick("volume")
        label = self.name()
        if name and self.ask("POST", f"/volumes/{name}/snapshots", {"Name": label}).status == 201:
            self.there["snapshot"][label] = name

    def container(self) -> None:
        name = self.name()
        body = {"Image": "busybox", "Cmd": ["cat", "/etc/hostname"], "Hostname": name, "Labels": {"of": name}}
        assert self.ask("POST", f"/containers/create?name={name}", body).status == 201
        self.there["container"][name] = name

    def run(self) -> None:
        name, word = self.name(), self.name()
        command = f"echo {word} > /f && sync && echo done"
        body = {"Image": "busybox", "Cmd": ["sh", "-c", command], "Labels": {"of": name}}
        assert self.ask("POST", f"/containers/create?name={name}", body).status == 201
        assert self.ask("POST", f"/containers/{name}/start").status == 204
        if self.ask("POST", f"/containers/{name}/wait").json["StatusCode"] == 0:
            self.there["container"][name] = name

    def image(self) -> None:
        name = self.name()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for number in range(30):
                info = tarfile.TarInfo(f"f{number}")
                data = f"{name} {number}".encode() * 500
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        answer = self.ask("POST", "/images/create", buffer.getvalue(), fromSrc="-", repo=name)
        if answer.status == 200 and b"errorDetail" not in answer.body:
            self.there["image"][name] = name

    def tag(self) -> None:
        image, name = self.pick("image"), self.name()
        if image and self.ask("POST", f"/images/{image}/tag", repo=name).status == 201:
            self.there["tag"][name] = image

    def commit(self) -> None:
        name, container = self.name(), self.pick("container")
        if container and self.ask("POST", "/commit", {}, container=container, repo=name).status == 201:
            self.there["tag"][name] = None

    def network(self) -> None:
        name = self.name()
        if self.ask("POST", "/networks/create", {"Name": name, "Internal": True}).status == 201:
            self.there["network"][name] = name

    def secret(self) -> None:
        name = self.name()
        assert self.ask("POST", "/secrets/create", {"Name": name, "Data": "eA=="}).status == 201
        self.there["secret"][name] = name

    def remove_volume(self) -> None:
        name = self.pick("volume")
        if name and self.forget("volume", name) and self.ask("DELETE", f"/volumes/{name}").status == 204:
            self.gone["volume"].add(name)

    def remove_container(self) -> None:
        name = self.pick("container")
        if not name or not self.forget("container", name):
            return
        if self.ask("DELETE", f"/containers/{name}?force=1").status == 204:
            self.gone["container"].add(name)

    def rename(self) -> None:
        old, new = self.pick("container"), self.name()
        label = self.forget("container", old) if old else None
        if label and self.ask("POST", f"/containers/{old}/rename", name=new).status == 204:
            self.there["container"][new] = label
            self.gone["container"].add(str(old))

    # ---- afterwards ------------------------------------------------------------------------------------

    def check(self) -> None:
        daemon, there, gone = self.daemon, self.there, self.gone
        volumes = {v["Name"]: v for v in daemon.api("GET", "/volumes").json["Volumes"]}
        assert there["volume"].keys() <= volumes.keys()
        assert not gone["volume"] & volumes.keys(), "what was removed is there again"
        for name in there["volume"]:
            assert volumes[name]["Labels"] == {"of": name}
        for label, volume in there["snapshot"].items():
            if volume in there["volume"]:
                kept = daemon.api("GET", f"/volumes/{volume}/snapshots").json["Snapshots"]
                assert label in {s["Name"] for s in kept}
        containers = {c["Names"][0][1:]: c for c in daemon.api("GET", "/containers/json", all=1).json}
        assert there["container"].keys() <= containers.keys()
        assert not gone["container"] & containers.keys(), "what was removed is there again"
        for name, label in there["container"].items():
            assert containers[name]["Labels"]["of"] == label
        assert {f"{name}:latest" for kind in ("image", "tag") for name in there[kind]} <= daemon.tags()
        assert there["network"].keys() <= daemon.networks()
        secrets = {s["Spec"]["Name"] for s in daemon.api("GET", "/secrets").json}
        assert there["secret"].keys() <= secrets
        fsck = daemon.wherry("system", "fsck")
        assert fsck.code == 0, fsck.out
        for name in latest(there["container"], 2):
            started = daemon.api("POST", f"/containers/{name}/start")
            assert started.status == 204, started.body
            assert daemon.docker("wait", name).ok() == "0"
        for name in latest(there["image"], 4):
            out = daemon.base / "saved.tar"
            daemon.docker("save", "-o", str(out), name).ok()
            created = daemon.api("POST", "/containers/create", {"Image": name, "Cmd": ["/f0"]})
            assert created.status == 201, created.body
            archive = daemon.api("GET", f"/containers/{created.json['Id']}/archive", path="/f29")
            with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
                member = tar.extractfile("f29")
                assert member is not None and member.read() == f"{name} 29".encode() * 500
            daemon.api("DELETE", f"/containers/{created.json['Id']}")
        assert not (daemon.root / "lost+found").exists() or not [
            p for p in (daemon.root / "lost+found").iterdir() if (p / "about").exists()
        ]


def latest(names: dict[str, Any], count: int) -> list[str]:
    """What was made last is what a cut reaches."""
    return sorted(names, key=lambda name: int(name[1:]))[-count:]


def rounds(cut: Cut, count: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    daemon = cut.daemon
    daemon.expects("level=error", "level=warning")  # while its disk fails; the rest is looked at below
    daemon.start()
    daemon.bootstrap()
    subprocess.run(["sync", "-f", str(daemon.root)], check=True)
    life = Life(daemon, seed)
    for number in range(count):
        failed: list[BaseException] = []
        workers = [
            threading.Thread(target=guarded, args=(partial(life.work, seed + 7 * number + n), failed))
            for n in range(3)
        ]
        for worker in workers:
            worker.start()
        threading.Event().wait(life.random.uniform(0.1, 2.5))
        cut.cut()
        for worker in workers:
            worker.join(patiently(60))
        assert not failed, failed
        before = len(daemon.log)  # What it says while its disk fails is another matter.
        daemon.start()
        try:
            life.check()
        except AssertionError as e:
            raise AssertionError(f"cut {number} of seed {seed}: {e}\n{daemon.log[before:]}") from e
        assert "Traceback" not in daemon.log[before:], daemon.log[before:]
        print(number, json.dumps({kind: len(names) for kind, names in life.there.items()}))


def guarded(work: Callable[[], None], failed: list[BaseException]) -> None:
    try:
        work()
    except BaseException as e:
        failed.append(e)


@pytest.mark.patient(120)
def test_a_power_cut(cut: Cut) -> None:
    rounds(cut, 2)


@pytest.mark.slow
@pytest.mark.fault("power cuts at random moments", "40 cuts")
@pytest.mark.patient(1800)
def test_many_power_cuts(cut: Cut) -> None:
    rounds(cut, 40)
