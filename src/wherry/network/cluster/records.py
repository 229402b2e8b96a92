"""The records that daemons share through the store, and their keys.

    /wherry/1/guard                      changed by every change of networks: one at a time
    /wherry/1/hosts/<host>               Host                            for as long as its lease lasts
    /wherry/1/networks/<id>              a network, as ``types.Network`` is written
    /wherry/1/addresses/<id>/<address>   <host>: who has the address      lease of the host
    /wherry/1/endpoints/<id>/<endpoint>  Remote                          lease of the host
    /wherry/1/offers/<host>/<other>      Offer, of a host to another     lease of the host

Values come from other machines: a value that cannot be read is ignored, with one log message.
"""

from __future__ import annotations

import logging
from ipaddress import IPv6Address, ip_address

import msgspec

from wherry.errors import WherryError
from wherry.linux.xfrm import SPI_FIRST, SPI_LAST
from wherry.model import typed
from wherry.network import options
from wherry.network.create import check_name
from wherry.network.types import Endpoint, Network

DRIVER = "overlay"
"""The driver of the networks that are shared."""
_log = logging.getLogger(__name__)

ROOT = "/wherry/1/"
GUARD = f"{ROOT}guard"
HOSTS, NETWORKS, ADDRESSES, ENDPOINTS, OFFERS = (
    f"{ROOT}{n}/" for n in ("hosts", "networks", "addresses", "endpoints", "offers")
)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon: the address for its VXLAN packets, its machine's name and, with encrypted networks, its
    public key in base64 (``ipsec``)."""

    id: str
    address: str
    name: str = ""
    key: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """How a host is ready to receive from another, in answer to that host's key: the SPI of an IPsec
    association, and a public key for this association only."""

    host: str
    to: str
    spi: int
    public: str
    answers: str


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """A container's endpoint on an overlay network, on any host."""

    host: str
    address: str
    endpoint: Endpoint


def network_key(network_id: str) -> str:
    return f"{NETWORKS}{network_id}"


def address_key(network_id: str, address: str) -> str:
    return f"{ADDRESSES}{network_id}/{address}"


def endpoint_key(endpoint: Endpoint) -> str:
    return f"{ENDPOINTS}{endpoint.network_id}/{endpoint.id}"


def offer_key(offer: Offer) -> str:
    return f"{OFFERS}{offer.host}/{offer.to}"


def read_network(text: str) -> Network | None:
    try:
        network = typed.from_json(text, Network)
        check_name(network.name)
        options.overlay(network.options)
        for subnet in network.subnets:
            _ = subnet.network, subnet.gateway and ip_address(subnet.gateway)
        if len(bytes.fromhex(network.id)) != 32:
            raise ValueError(f"{network.id[:64]!r} is no id")
    except (msgspec.MsgspecError, ValueError, WherryError) as e:
        _log.warning("ignored an unreadable network in the cluster store: %s", e)
        return None
    if network.driver != DRIVER:
        return None
    # this host chooses the interface's name: another host's could clash with an existing interface
    return msgspec.structs.replace(network, bridge_name=f"br-{network.id[:12]}", pools={}, config_only=False)


def check_address(text: str) -> None:
    """Check an address that a host gives to the others. :raises ValueError: not usable as such."""
    address = ip_address(text)
    six = address if isinstance(address, IPv6Address) else None
    if address.is_unspecified or address.is_multicast or address.is_loopback or text == "255.255.255.255":
        raise ValueError(f"{text} is no host's address")
    if six is not None and (six.scope_id or six.is_link_local or six.ipv4_mapped):
        raise ValueError(f"{text} is not the address of a host by itself")


def read_host(key: str, text: str) -> Host | None:
    try:
        host = typed.from_json(text, Host)
        check_address(host.address)
        if f"{HOSTS}{host.id}" != key or "/" in host.id:
            raise ValueError(f"{host.id[:64]!r} stands at {key[:160]!r}")
    except (msgspec.MsgspecError, ValueError) as e:
        _log.warning("ignored an unreadable host in the cluster store: %s", e)
        return None
    return host


def read_offer(key: str, text: str) -> Offer | None:
    try:
        offer = typed.from_json(text, Offer)
        if offer_key(offer) != key or not SPI_FIRST <= offer.spi <= SPI_LAST:
            raise ValueError(f"it stands at {key[:160]!r} with SPI {offer.spi}")
    except (msgspec.MsgspecError, ValueError) as e:
        _log.warning("ignored an unreadable offer in the cluster store: %s", e)
        return None
    return offer


def read_remote(text: str) -> Remote | None:
    try:
        remote = typed.from_json(text, Remote)
        check_address(remote.address)
        for address in remote.endpoint.addresses:
            ip_address(address)
        if len(bytes.fromhex(remote.endpoint.mac.replace(":", ""))) != 6:
            raise ValueError(f"{remote.endpoint.mac!r} is no MAC address")
    except (msgspec.MsgspecError, ValueError) as e:
        _log.warning("ignored an unreadable endpoint in the cluster store: %s", e)
        return None
    return remote


def write(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
