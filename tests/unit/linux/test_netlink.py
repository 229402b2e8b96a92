from __future__ import annotations

import errno
import ipaddress
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.errors import Internal
from wherry.linux import netlink as nl
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket

kinds = st.integers(min_value=0, max_value=nl.NLA_TYPE_MASK)


@settings(deadline=None)
@given(kinds, st.binary(max_size=300))
def test_attribute_round_trip(kind: int, payload: bytes) -> None:
    encoded = nl.attribute(kind, payload)
    assert len(encoded) % 4 == 0
    assert nl.attributes(encoded) == {kind: payload}


@settings(deadline=None)
@given(st.dictionaries(kinds, st.binary(max_size=60), max_size=6))
def test_nested_attributes_stay_within_their_parent(inner: dict[int, bytes]) -> None:
    parent = nl.nested(7, *(nl.attribute(k, v) for k, v in inner.items()))
    after = nl.attribute(8, b"behind")
    outer = nl.attributes(parent + after)
    assert set(outer) == {7, 8}
    assert nl.attributes(outer[7]) == inner


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=40))
def test_length_never_wraps(excess: int) -> None:
    """A payload beyond 16 bits would be read as further attributes (CVE-2021-43784)."""
    smuggled = nl.attribute(3, b"eth0\0")
    payload = smuggled + bytes(nl.ATTRIBUTE_PAYLOAD_MAX - len(smuggled) + 1 + excess)
    with pytest.raises(Internal, match="cannot encode netlink attribute"):
        nl.attribute(1, payload)
    with pytest.raises(Internal, match="cannot encode netlink attribute"):
        nl.nested(1, *[nl.attribute(2, bytes(1000))] * 66)


def test_largest_payload_fits() -> None:
    payload = b"x" * nl.ATTRIBUTE_PAYLOAD_MAX
    assert nl.attributes(nl.attribute(1, payload)) == {1: payload}


@pytest.mark.parametrize("kind", [-1, nl.NLA_TYPE_MASK + 1, 1 << 16])
def test_kind_is_checked(kind: int) -> None:
    with pytest.raises(Internal, match="no such kind"):
        nl.attribute(kind, b"")


@pytest.mark.parametrize(
    ("encode", "value"),
    [(nl.u8, 256), (nl.u8, -1), (nl.u32, 1 << 32), (nl.be16, 1 << 16), (nl.be32, -1)],
)
def test_integers_are_checked(encode: object, value: int) -> None:
    with pytest.raises(Internal, match="cannot encode netlink integer"):
        encode(1, value)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["with\0nul", "x" * 16])
def test_strings_are_checked(text: str) -> None:
    with pytest.raises(Internal, match="is not a string of 15 bytes"):
        nl.string(3, text, limit=15)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_interface_names_are_checked(name: str) -> None:
    fits = 0 < len(name.encode("utf-8", "surrogatepass")) < rt.IFNAMSIZ and "\0" not in name
    try:
        message = rt.delete_link(name)
    except (Internal, UnicodeEncodeError):
        assert not fits or any(0xD800 <= ord(c) < 0xE000 for c in name)
    else:
        assert nl.text_of(nl.attributes(message.payload[16:])[3]) == name


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_decoding_anything_ends(data: bytes) -> None:
    for decode in (nl.attributes, lambda d: list(nl.decode(d))):
        try:
            decode(data)
        except Internal as e:
            assert "cannot decode netlink" in str(e)


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_lying_lengths_are_refused(length: int) -> None:
    with pytest.raises(Internal, match="cannot decode netlink attribute"):
        nl.attributes(struct.pack("=HH", length, 1) + b"abcd")


def test_messages_are_bounded() -> None:
    with pytest.raises(Internal, match="cannot send netlink message"):
        nl.encode(NetlinkMessage(16, 0, bytes(nl.BATCH_MAX)), 1)
    with NetlinkSocket() as sock, pytest.raises(Internal, match="cannot send netlink batch"):
        sock.transact(*[NetlinkMessage(16, 0, bytes(nl.BATCH_MAX // 4))] * 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=50)), max_size=5))
def test_message_round_trip(messages: list[tuple[int, bytes]]) -> None:
    data = b"".join(nl.encode(NetlinkMessage(k, 0, p), i) for i, (k, p) in enumerate(messages))
    found = [(r.kind, r.sequence, r.payload) for r in nl.decode(data)]
    assert found == [(k, i, p) for i, (k, p) in enumerate(messages)]


@pytest.mark.parametrize("text", ["", "02:42", "02:42:00:00:00:0g", "2:42:0:0:0:1", "02:42:ac:11:00:02:03"])
def test_bad_mac(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid"):
        rt.mac_bytes(text)


def test_the_loopback_interface_is_found() -> None:
    with NetlinkSocket() as sock:
        link = rt.link(sock, "lo")
        assert link is not None
        assert (link.index, link.mac, link.master) == (1, "00:00:00:00:00:00", 0)
        assert link in rt.links(sock)
        assert rt.link(sock, "no-such-link") is None
        assert (1, ipaddress.ip_interface("127.0.0.1/8")) in rt.addresses(sock)


def test_refusals_carry_the_reason() -> None:
    with NetlinkSocket() as sock:
        with pytest.raises(NetlinkError) as caught:
            sock.transact(rt.set_link(1), rt.delete_link("no-such-link"))
        assert caught.value.errno == errno.ENODEV
        assert caught.value.position == 1
        assert os.strerror(errno.ENODEV) in str(caught.value)
