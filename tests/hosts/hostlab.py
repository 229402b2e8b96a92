"""Hosts in miniature: network namespaces on one wire, each with a daemon of its own, and etcd on another."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patience import patiently

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from daemonlab import LabDaemon, new_base, wait_until

from wherry.linux import netns

TTL = 3
_ETCD = "10.99.0.100"


class Switch:
    """A namespace with a bridge that the hosts' wires end at. The machine's own has no part in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "switch"
        netns.create(self.path, lambda: None)
        self.run("link", "add", "br0", "type", "bridge")
        self.run("link", "set", "br0", "up")

    def run(self, *words: str) -> None:
        ip(self.path, *words)

    def plug(self, name: str, address: str) -> Path:
        """A new host on the wire."""
        path = self.directory / name
        netns.create(path, lambda: None)
        self.run("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(path))
        self.run("link", "set", f"to-{name}", "master", "br0", "up")
        for line in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
            ip(path, *line.split())
        return path

    @contextlib.contextmanager
    def cut(self, name: str) -> Iterator[None]:
        """The wire of a host is cut."""
        self.run("link", "set", f"to-{name}", "down")
        try:
            yield
        finally:
            self.run("link", "set", f"to-{name}", "up")

    def destroy(self) -> None:
        for path in list(self.directory.iterdir()):
            if path.is_file():
                netns.unpin(path)
        shutil.rmtree(self.directory, ignore_errors=True)


def ip(where: Path, *words: str) -> str:
    return inside(
        where, lambda: subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    )


def inside(where: Path, function: Callable[[], Any]) -> Any:
    return netns.inside(where, function)


class EtcdServer:
    """Debian's etcd-server in a namespace of its own."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.data = Path(tempfile.mkdtemp(prefix="wh-etcd-"))
        self.url = f"http://{_ETCD}:2379"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [
            "etcd", "--data-dir", str(self.data / "d"), "--listen-client-urls", self.url,
            "--advertise-client-urls", self.url, "--listen-peer-urls", "http://127.0.0.1:2380",
            "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
            "--initial-cluster", "default=http://127.0.0.1:2380", "--unsafe-no-fsync",
        ]  # fmt: skip
        with (self.data / "log").open("ab") as log:
            self.process = inside(self.where, lambda: subprocess.Popen(argv, stdout=log, stderr=log))
        wait_until(self.answers, "etcd")

    def answers(self) -> bool:
        try:
            return bool(json.loads(self.get("/health"))["health"])
        except OSError:
            return False

    def get(self, path: str) -> bytes:
        def ask() -> bytes:
            with urllib.request.urlopen(self.url + path, timeout=patiently(2)) as answer:
                data: bytes = answer.read()
                return data

        found: bytes = inside(self.where, ask)
        return found

    def list_keys(self) -> list[str]:
        argv = ["etcdctl", "--endpoints", self.url, "get", "--prefix", "--keys-only", "/"]
        environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}

        def run() -> str:
            return subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stdout

        return sorted(line for line in str(inside(self.where, run)).splitlines() if line)

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(patiently(10))
            self.process = None

    def destroy(self) -> None:
        self.end()
        shutil.rmtree(self.data, ignore_errors=True)


class Host(LabDaemon):
    """A daemon whose network namespace is a host of its own."""

    def __init__(self, name: str, where: Path, address: str) -> None:
        self.name, self.where, self.address = name, where, address
        super().__init__(
            new_base(),
            *("--cluster-store", f"etcd://{_ETCD}:2379", "--cluster-advertise", address),
            *("--cluster-store-opt", f"ttl={TTL}"),
            program=["nsenter", f"--net={where}", sys.executable, "-m", "wherry.daemon.main"],
        )

    def _scrub(self) -> None:
        # what it has in its namespace goes with that
        (self.root / "wherry.db").unlink(missing_ok=True)
        super()._scrub()

    def box(self, name: str, network: str, *arguments: str) -> None:
        self.docker(
            "run", "-d", "--name", name, "--network", network, *arguments, "busybox", "sleep", "1000"
        ).ok()

    def reaches(self, name: str, other: str, *arguments: str) -> bool:
        return self.docker("exec", name, "ping", "-c1", "-W1", *arguments, other).code == 0

    def address_of(self, name: str, network: str) -> str:
        found = json.loads(self.docker("inspect", name).ok())[0]["NetworkSettings"]["Networks"][network]
        return str(found["IPAddress"])

    def links(self) -> list[str]:
        return sorted(line.split()[1] for line in ip(self.where, "-o", "link").splitlines())


class Cluster:
    def __init__(self, count: int) -> None:
        self.switch = Switch(Path(tempfile.mkdtemp(prefix="wh-hosts-")))
        self.etcd = EtcdServer(self.switch.plug("etcd", _ETCD))
        self.hosts: list[Host] = []
        self._count = count

    def __enter__(self) -> Cluster:
        try:
            self.etcd.where and ip(self.etcd.where, "link", "set", "lo", "up")
            self.etcd.start()
            for number in range(1, self._count + 1):
                name, address = f"h{number}", f"10.99.0.{number}"
                self.hosts.append(Host(name, self.switch.plug(name, address), address))
                self.hosts[-1].start()
                self.hosts[-1].bootstrap()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        for host in self.hosts:
            host.destroy()
        self.etcd.destroy()
        time.sleep(0)
        self.switch.destroy()
