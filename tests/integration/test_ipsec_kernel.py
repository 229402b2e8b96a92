"""IPsec policies and the firewall's own bar in the real kernel, as far as they go without ESP: that nothing
passes in the clear. What ESP carries is seen in ``tests/hosts/test_encrypted.py``."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from network_lab import QUIET, on_a_host, other_host, shell, until
from patience import patiently

from wherry.linux import netns, xfrm
from wherry.linux.nft import Nft
from wherry.linux.xfrm import Flow, XfrmPolicy, XfrmSocket, XfrmWatch
from wherry.network import ruleset
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.types import Instance

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(os.geteuid() == 0 and not xfrm.available(), reason="the kernel has no IPsec"),
]
PORT = 4790
HERE, THERE = ip_address("198.51.100.1"), ip_address("198.51.100.2")
BARS = Ipsec(Instance("default"), "h1", str(HERE), rekey=60, changed=lambda: None)._barriers()


def passing(where: Path, port: int = PORT, at: str = str(HERE)) -> tuple[bool, bool]:
    """Whether a UDP packet comes in from the other host, and whether one goes out to it, of this address."""

    def bound(address: str) -> Callable[[], socket.socket]:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(patiently(QUIET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((address, port))
            return sock

        return make

    with bound(at)() as here, netns.inside(where, bound(str(THERE))) as there:
        return _arrives(there, here), _arrives(here, there)


def _arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    try:
        sender.sendto(b"x", receiver.getsockname())
        return receiver.recv(9) == b"x"
    except (TimeoutError, PermissionError):
        return False


@on_a_host
def test_policies_are_what_was_put(tmp_path: Path) -> None:
    six, other = ip_address("fd00::1"), ip_address("fd00::2")
    wanted = [
        *BARS,
        XfrmPolicy("out", Flow(HERE, THERE, PORT), 100, 0x1234, 0xFEDCBA98),
        XfrmPolicy("out", Flow(six, None, PORT, 6), 101, block=True),
        XfrmPolicy("in", Flow(None, six, PORT, 6), 100, 7),
        XfrmPolicy("out", Flow(six, other, PORT, 6), 100, 7, 0x100),
    ]
    with XfrmSocket() as sock:
        sock.put_policy(XfrmPolicy("out", Flow(HERE, THERE, PORT + 1), 100, 1, 2))
        for policy in wanted:
            sock.put_policy(policy)
        assert sorted(map(repr, sock.policies(PORT))) == sorted(map(repr, wanted))
        changed = XfrmPolicy("out", Flow(HERE, THERE, PORT), 100, 0x1234, 0x999)
        sock.put_policy(changed)
        assert changed in sock.policies(PORT) and len(sock.policies(PORT)) == len(wanted)
        for policy in wanted:
            sock.remove_policy(policy)
            sock.remove_policy(policy)
        assert sock.policies(PORT) == [] and len(sock.policies(PORT + 1)) == 1
        assert sock.associations(0x1234) == []
        sock.remove(xfrm.Association(HERE, THERE, 0x999, 1))


@on_a_host
def test_policies_let_nothing_pass_in_the_clear(tmp_path: Path) -> None:
    there = other_host(tmp_path / "hosts", "lan", "198.51.100")
    shell("ip", "addr", "add", "198.51.100.9/24", "broadcast", "+", "dev", "lan")
    until(lambda: passing(there) == (True, True), "the wire")
    assert passing(there, at="198.51.100.9") == (True, True)
    assert passing(there, at="198.51.100.255")[0]
    with XfrmSocket() as sock:
        for policy in BARS:
            sock.put_policy(policy)
        for address in (str(HERE), "198.51.100.9", "198.51.100.255"):
            assert passing(there, at=address) == (False, False), address
        assert passing(there, PORT + 1) == (True, True), "nothing else is concerned"
        sock.put_policy(XfrmPolicy("out", Flow(HERE, THERE, PORT), 100, 0x1234, 0x999))
        assert passing(there) == (False, False), "nor by a policy whose association is not there"
        shell("ip", "xfrm", "policy", "flush")
        assert passing(there) == (True, True)


@on_a_host
def test_the_firewall_bars_the_port_on_its_own(tmp_path: Path) -> None:
    there = other_host(tmp_path / "hosts", "lan", "198.51.100")
    until(lambda: passing(there) == (True, True), "the wire")
    nft = Nft()
    nft.run(ruleset.head("wherry", sealed=PORT))
    assert passing(there) == (False, False)
    assert passing(there, PORT + 1) == (True, True)
    nft.run(ruleset.head("wherry"))
    assert passing(there) == (True, True)
    assert "sealed" not in shell("nft", "list", "ruleset")


@on_a_host
def test_what_is_taken_away_is_noticed(tmp_path: Path) -> None:
    noticed = threading.Semaphore(0)
    watch = XfrmWatch(noticed.release)
    with XfrmSocket() as sock:
        for take in (lambda: sock.remove_policy(BARS[0]), lambda: shell("ip", "xfrm", "policy", "flush")):
            for policy in BARS:
                sock.put_policy(policy)
            assert not noticed.acquire(timeout=patiently(QUIET)), "what is added is not taken away"
            take()
            assert noticed.acquire(timeout=patiently(5))
            while noticed.acquire(timeout=patiently(QUIET)):
                pass
    watch.close()
    assert not [t for t in threading.enumerate() if t.name == "ipsec-watch"]
