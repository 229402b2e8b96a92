"""Hosts in miniature: network namespaces on one wire, each with a daemon of its own, and etcd on another."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from patience import patiently

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

import reaper
from daemonlab import LabDaemon, new_base, wait_until
from test_daemon_listeners import certificate

from wherry.linux import netns, xfrm

TTL = int(patiently(3))
_ETCD = "10.99.0.100"


def no_esp() -> str:
    """Why this kernel cannot have encrypted networks, ``""`` if it can."""
    loop = ip_address("127.0.0.1")
    association = xfrm.Association(loop, loop, 0xABCDE, 0xABCDE)
    try:
        with xfrm.XfrmSocket() as sock:
            sock.add(association, secrets.token_bytes(xfrm.KEY_SIZE), 9)
            sock.remove(association)
    except OSError as e:
        return str(e)
    return ""


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
        for line in (
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            f"addr add {six(address)}/64 dev eth0 nodad",
            "link set eth0 up",
        ):
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
        reaper.let_go(self.directory)


def six(address: str) -> str:
    """The IPv6 address that a host has besides."""
    return f"fd99::{address.rpartition('.')[2]}"


def ip(where: Path, *words: str) -> str:
    return inside(
        where, lambda: subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    )


def inside(where: Path, function: Callable[[], Any]) -> Any:
    return netns.inside(where, function)


def make_certificates(directory: Path) -> Path:
    """An authority, and what it has signed for etcd (``server``) and for daemons (``client``)."""
    certificate(directory, "ca")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    certificate(directory, "server", *signed, "-addext", f"subjectAltName=IP:{_ETCD},IP:127.0.0.1")
    certificate(directory, "client", *signed)
    return directory


def store_options(certificates: Path) -> tuple[str, ...]:
    """A daemon's options for an etcd with these."""
    return (
        f"kv.cacertfile={certificates}/ca.pem",
        f"kv.certfile={certificates}/client.pem",
        f"kv.keyfile={certificates}/client.key",
    )


class EtcdServer:
    """Debian's etcd-server in a namespace of its own."""

    def __init__(self, where: Path, certificates: Path | None = None) -> None:
        """:param certificates: those of :func:`make_certificates`: TLS, for clients that have one as well."""
        self.where = where
        self.data = reaper.keep(Path(tempfile.mkdtemp(prefix="wh-etcd-")))
        self.address = _ETCD
        self.url = f"{'https' if certificates else 'http'}://{_ETCD}:2379"
        self._certificates = certificates
        self._context = None
        if certificates is not None:
            self._context = ssl.create_default_context(cafile=certificates / "ca.pem")
            self._context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [
            "etcd", "--data-dir", str(self.data / "d"), "--listen-client-urls", self.url,
            "--advertise-client-urls", self.url, "--listen-peer-urls", "http://127.0.0.1:2380",
            "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
            "--initial-cluster", "default=http://127.0.0.1:2380", "--unsafe-no-fsync",
        ]  # fmt: skip
        if (own := self._certificates) is not None:
            argv += ["--cert-file", f"{own}/server.pem", "--key-file", f"{own}/server.key"]
            argv += ["--client-cert-auth", "--trusted-ca-file", f"{own}/ca.pem"]
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
            with urllib.request.urlopen(
                self.url + path, timeout=patiently(2), context=self._context
            ) as answer:
                data: bytes = answer.read()
                return data

        found: bytes = inside(self.where, ask)
        return found

    def list_keys(self) -> list[str]:
        argv = ["etcdctl", "--endpoints", self.url, "get", "--prefix", "--keys-only", "/"]
        if (own := self._certificates) is not None:
            argv += ["--cacert", f"{own}/ca.pem", "--cert", f"{own}/client.pem", "--key", f"{own}/client.key"]
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
        reaper.let_go(self.data)


class Host(LabDaemon):
    """A daemon whose network namespace is a host of its own."""

    def __init__(self, name: str, where: Path, address: str, *options: str) -> None:
        """:param options: further ones for the cluster store, each ``KEY=VALUE``."""
        self.name, self.where, self.address = name, where, address
        super().__init__(
            new_base(),
            *("--cluster-store", f"etcd://{_ETCD}:2379", "--cluster-advertise", address),
            *(word for option in (f"ttl={TTL}", *options) for word in ("--cluster-store-opt", option)),
            program=["nsenter", f"--net={where}", sys.executable, "-m", "wherry.daemon.entry"],
        )

    def scrub(self) -> None:
        # what it has in its namespace goes with that
        (self.root / "wherry.db").unlink(missing_ok=True)
        super().scrub()

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
    def __init__(
        self, count: int, *options: str, certificates: Path | None = None, ipv6: bool = False
    ) -> None:
        """:param options: as of :class:`Host`. :param certificates: as of :class:`EtcdServer`.
        :param ipv6: the hosts speak to each other by IPv6.
        """
        self.switch = Switch(reaper.keep(Path(tempfile.mkdtemp(prefix="wh-hosts-"))))
        self.etcd = EtcdServer(self.switch.plug("etcd", _ETCD), certificates)
        self.hosts: list[Host] = []
        self._count = count
        self._options = (*options, *(() if certificates is None else store_options(certificates)))
        self._ipv6 = ipv6

    def __enter__(self) -> Cluster:
        try:
            self.etcd.where and ip(self.etcd.where, "link", "set", "lo", "up")
            self.etcd.start()
            for _ in range(self._count):
                self.join(*self._options).bootstrap()
        except BaseException:
            self.__exit__()
            raise
        return self

    def join(self, *options: str) -> Host:
        """One more host, with these options for the store."""
        number = len(self.hosts) + 1
        name, address = f"h{number}", f"10.99.0.{number}"
        where = self.switch.plug(name, address)
        self.hosts.append(Host(name, where, six(address) if self._ipv6 else address, *options))
        self.hosts[-1].start()
        return self.hosts[-1]

    def __exit__(self, *_details: object) -> None:
        for host in self.hosts:
            host.destroy()
        self.etcd.destroy()
        time.sleep(0)
        self.switch.destroy()


def left_in(cluster: Cluster) -> list[str]:
    """Keys of networks and what is on them."""
    return [k for k in cluster.etcd.list_keys() if "/hosts/" not in k and not k.endswith("/guard")]


@contextlib.contextmanager
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """A test's containers and networks are removed; then nothing of it is left, on the hosts or in etcd."""
    before = {host.name: host.links() for host in cluster.hosts}
    yield
    for host in cluster.hosts:
        host.remove_containers()
    for network in cluster.hosts[0].networks() - {"bridge", "host", "none"}:
        cluster.hosts[0].api("DELETE", f"/networks/{network}")
    wait_until(lambda: not left_in(cluster), "etcd to hold nothing of the test")
    for host in cluster.hosts:
        wait_until(lambda h=host: h.links() == before[h.name], f"{host.name}: {host.links()}")  # type: ignore[misc]


def overlay(hosts: list[Host], name: str, *arguments: str) -> None:
    """An overlay network that all hosts have heard of."""
    hosts[0].docker("network", "create", "-d", "overlay", "--attachable", *arguments, name).ok()
    for host in hosts:
        wait_until(lambda h=host: name in h.networks(), f"{host.name} to hear of {name}")  # type: ignore[misc]
