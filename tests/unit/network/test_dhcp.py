from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.network.dhcp import message
from wherry.network.dhcp.leases import with_lease
from wherry.network.dhcp.message import DhcpLease
from wherry.network.types import Endpoint

MAC = bytes.fromhex("02420a000002")
OPTIONS = bytes.fromhex("350105 36040a000001 330400000e10 0104fffff000 03040a000001 ff")


def answer(options: bytes = OPTIONS, *, mac: bytes = MAC, operation: int = 2) -> bytes:
    """A server's packet, made from a client's."""
    packet = bytearray(message.request(message.REQUEST, mac=mac, transaction=99))
    packet[20:24] = b"\x00\x43\x00\x44"  # from 67 to 68
    packet[28] = operation
    packet[28 + 16 : 28 + 20] = bytes((10, 0, 0, 7))
    return bytes(packet[: 28 + 240]) + options


def test_what_a_server_grants_is_read() -> None:
    reply = message.read(answer(), MAC)
    assert reply is not None
    assert (reply.kind, reply.transaction) == (message.ACK, 99)
    assert reply.lease == DhcpLease(
        IPv4Address("10.0.0.7"), 20, IPv4Address("10.0.0.1"), IPv4Address("10.0.0.1"), 3600
    )
    assert reply.lease.renew_after == 1800


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45" + bytes(19),
        answer(mac=bytes.fromhex("02420a000003")),
        answer(operation=1),
        answer(b"\xff"),
        message.request(message.DISCOVER, mac=MAC, transaction=1),
    ],
)
def test_what_is_not_for_us_is_none(packet: bytes) -> None:
    assert message.read(packet, MAC) is None


@given(st.binary(max_size=400))
def test_noise(data: bytes) -> None:
    for packet in (data, answer(data)):
        found = message.read(packet, MAC)
        assert found is None or isinstance(found, message.DhcpReply)


def test_a_mask_that_is_none() -> None:
    reply = message.read(answer(OPTIONS.replace(b"\xff\xff\xf0\x00", b"\xff\x00\xff\x00")), MAC)
    assert reply is not None and reply.lease.prefix_len == 24


def test_an_endpoint_gets_its_lease() -> None:
    plain = Endpoint(id="e", network_id="n", network_name="net", container_id="c", ip="10.0.0.9")
    lease = DhcpLease(IPv4Address("10.0.0.7"), 20, None, IPv4Address("10.0.0.1"), 60)
    found = with_lease(plain, lease)
    assert (found.ip, found.prefix_len, found.gateway) == ("10.0.0.7", 20, "")
