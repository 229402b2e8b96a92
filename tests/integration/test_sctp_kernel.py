"""Published sctp ports, on kernels that have the protocol."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from network_lab import QUIET, footprint, manager, on_a_host, other_host
from patience import patiently

from wherry.errors import Internal
from wherry.linux import netns
from wherry.network.room import NetworkRoom
from wherry.network.types import PortMapping, Sandbox

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def sctp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    made.settimeout(patiently(5))
    return made


def needs_sctp() -> None:
    try:
        sctp().close()
    except OSError as e:
        pytest.skip(f"this kernel has no sctp: {e.strerror}")


def answer(where: Path, port: int) -> None:
    """Say the caller's address to everybody, until the process ends."""

    def listen() -> socket.socket:
        made = sctp()
        made.bind(("0.0.0.0", port))
        made.listen(5)
        made.settimeout(None)
        return made

    listener = netns.inside(where, listen)

    def run() -> None:
        while True:
            connection, peer = listener.accept()
            with connection:
                connection.send(peer[0].encode())

    threading.Thread(target=run, daemon=True).start()


def ask(where: Path | None, address: str, port: int, timeout: float = 5) -> str:
    def run() -> str:
        with sctp() as sock:
            sock.settimeout(patiently(timeout))
            try:
                sock.connect((address, port))
                return sock.recv(100).decode()
            except TimeoutError:
                return "silence"
            except ConnectionRefusedError:
                return "refused"

    return run() if where is None else netns.inside(where, run)


def container(m: NetworkRoom, *ports: PortMapping) -> Sandbox:
    return m.sandboxes.create(os.urandom(32).hex(), name="test", network_mode="default", ports=ports)


@on_a_host
def test_a_port_is_published(tmp_path: Path) -> None:
    needs_sctp()
    m = manager(tmp_path)
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    before = footprint(tmp_path)
    web = container(m, PortMapping(container_port=99, host_port=9999, proto="sctp"))
    answer(web.path, 99)
    assert ask(lan, "198.51.100.1", 9999) == "198.51.100.2", "with the source address"
    assert ask(None, "198.51.100.1", 9999) == "198.51.100.1"
    with pytest.raises(Internal, match="port is already allocated"):
        container(m, PortMapping(container_port=99, host_port=9999, proto="sctp"))
    with pytest.raises(OSError, match="Address already in use"):
        sctp().bind(("0.0.0.0", 9999))
    m.sandboxes.delete(web.container_id)
    assert ask(lan, "198.51.100.1", 9999, QUIET) in ("refused", "silence")
    with sctp() as sock:
        sock.bind(("0.0.0.0", 9999))
    m.settle()
    after = footprint(tmp_path)
    # the test's own server is still there
    assert {**after, "descriptors": 0} == {**before, "descriptors": 0}
