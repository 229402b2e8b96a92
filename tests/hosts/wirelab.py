"""What is seen of overlay networks from outside: containers that are nothing but their network, the wire
between hosts, and the kernel's IPsec."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

from hostlab import Cluster, Host, inside, ip, wait_until
from patience import patiently

from wherry.network.cluster import ipsec

ESP, UDP = 50, 17


class Box:
    """A container that sleeps. What runs in it is a program of the machine's in its network namespace."""

    def __init__(self, host: Host, name: str, network: str) -> None:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": network}}
        made = host.api("POST", "/containers/create", body, name=name)
        assert made.status == 201, made.json
        assert host.api("POST", f"/containers/{name}/start").status == 204
        shown = host.api("GET", f"/containers/{name}/json").json
        self.namespace = Path(f"/proc/{shown['State']['Pid']}/ns/net")
        found = shown["NetworkSettings"]["Networks"][network]
        self.address, self.mac = str(found["IPAddress"]), str(found["MacAddress"])

    def start(self, *argv: str) -> subprocess.Popen[str]:
        def begin() -> subprocess.Popen[str]:
            return subprocess.Popen(
                argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )

        begun: subprocess.Popen[str] = inside(self.namespace, begin)
        return begun

    def run(self, *argv: str) -> str:
        return self.start(*argv).communicate(timeout=patiently(20))[0]

    def reaches(self, other: Box, *arguments: str) -> bool:
        said = self.run("busybox", "ping", "-c1", "-W1", *arguments, other.address)
        return "1 packets received" in said

    @property
    def mtu(self) -> int:
        return int(json.loads(self.run("ip", "-j", "link", "show", "eth0"))[0]["mtu"])


def two_boxes(hosts: list[Host], network: str = "wide") -> tuple[Box, Box]:
    """Containers on both hosts that reach each other."""
    one, two = (Box(host, f"{network}-{host.name}", network) for host in hosts)
    wait_until(lambda: one.reaches(two), "traffic")
    return one, two


def carried(one: Box, two: Box, data: bytes) -> bytes:
    """What comes out at the second container when the first sends it by TCP."""
    with inside(two.namespace, lambda: socket.create_server((two.address, 9999))) as listening:
        listening.settimeout(patiently(10))

        def send() -> None:
            with socket.create_connection((two.address, 9999), timeout=patiently(10)) as sock:
                sock.sendall(data)

        sender = threading.Thread(target=inside, args=(one.namespace, send))
        sender.start()
        try:
            got = b""
            with listening.accept()[0] as sock:
                while part := sock.recv(1 << 16):
                    got += part
        finally:
            sender.join()
    return got


def ipsec_of(host: Host) -> str:
    """What the kernel has of IPsec, in words."""
    return ip(host.where, "xfrm", "state") + ip(host.where, "xfrm", "policy")


def spis(host: Host, to: Host) -> list[int]:
    """The associations by which a host sends to another."""
    found = []
    for head, line in pairwise(ip(host.where, "xfrm", "state").splitlines()):
        if head == f"src {host.address} dst {to.address}":
            found.append(int(line.split()[line.split().index("spi") + 1], 16))
    return found


def rules(host: Host) -> str:
    argv = ["nft", "list", "ruleset"]
    return str(
        inside(host.where, lambda: subprocess.run(argv, capture_output=True, check=True, text=True).stdout)
    )


class Wire:
    """Every packet that passes the switch, seen by whoever owns it."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: list[bytes] = []
        self._socket = inside(cluster.switch.path, self._open)
        self._thread = threading.Thread(target=self._run)

    @staticmethod
    def _open() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        opened.bind(("to-h1", 3))
        opened.settimeout(0.2)
        return opened

    def __enter__(self) -> Self:
        self._on = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while self._on:
            with suppress(TimeoutError):
                self.seen.append(self._socket.recv(1 << 16))

    def of(self, protocol: int, port: int = 0) -> list[bytes]:
        """Packets of a protocol, of UDP those to a port, without their Ethernet header."""
        found = []
        for frame in self.seen:
            kind, packet = frame[12:14], frame[14:]
            if kind not in (b"\x08\x00", b"\x86\xdd"):
                continue
            header, at = (40, 6) if kind == b"\x86\xdd" else (20, 9)
            if packet[at] == protocol and (
                protocol != UDP or struct.unpack_from("!H", packet, header + 2)[0] == port
            ):
                found.append(packet)
        return found

    @property
    def tunnels(self) -> list[bytes]:
        """VXLAN in the clear, of an encrypted network."""
        return self.of(UDP, ipsec.PORT)


def made(hosts: list[Host], name: str, subnet: str, **options: str) -> None:
    config = {"Config": [{"Subnet": subnet}]}
    body = {"Name": name, "Driver": "overlay", "IPAM": config, "Options": options}
    answer = hosts[0].api("POST", "/networks/create", body)
    assert answer.status == 201, answer.json
    for host in hosts:
        wait_until(lambda h=host: name in h.networks(), f"{host.name} to hear of {name}")  # type: ignore[misc]


def sealed(hosts: list[Host], name: str = "wide", subnet: str = "10.50.0.0/24") -> None:
    """An encrypted network on both hosts, each ready to send to the other."""
    made(hosts, name, subnet, encrypted="")
    one, two = hosts
    wait_until(lambda: len(spis(one, two)) == 1 == len(spis(two, one)), "the hosts to agree on keys")
