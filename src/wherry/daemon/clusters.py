"""The cluster settings: ``cluster-store`` and related keys."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence

from wherry.errors import InvalidArgument
from wherry.network.cluster.etcd import parse_places
from wherry.network.cluster.records import check_address
from wherry.network.types import ClusterConfig

_FILES = {"kv.cacertfile": "ca_file", "kv.certfile": "cert_file", "kv.keyfile": "key_file"}
_SECONDS = {"ttl": range(3, 3601), "rekey": range(10, 7 * 86400 + 1)}


def configured(
    store: str | None, advertise: str | None, given: Mapping[str, str] | Sequence[str] | None
) -> ClusterConfig | None:
    """:raises InvalidArgument: a key without the others that it needs, or an invalid value."""
    if not store:
        if advertise or given:
            raise InvalidArgument("cluster-advertise and cluster-store-opt need cluster-store")
        return None
    parse_places(store)
    if not advertise:
        raise InvalidArgument("cluster-store needs cluster-advertise: this host's address for the others")
    pairs = given.items() if isinstance(given, Mapping) else [_pair(text) for text in given or ()]
    values: dict[str, str] = {}
    seconds = {"ttl": ClusterConfig.ttl, "rekey": ClusterConfig.rekey}
    for name, value in pairs:
        if name in _FILES:
            values[_FILES[name]] = value
        elif name in _SECONDS:
            allowed = _SECONDS[name]
            if not value.isdecimal() or int(value) not in allowed:
                raise InvalidArgument(
                    f"invalid cluster store option {name}={value[:32]}: "
                    f"it must be {allowed.start} to {allowed.stop - 1} seconds"
                )
            seconds[name] = int(value)
        else:
            raise InvalidArgument(
                f"unknown cluster store option {name[:64]!r}: known are {', '.join((*_SECONDS, *_FILES))}"
            )
    return ClusterConfig(
        store=store, advertise=_address(advertise), ttl=seconds["ttl"], rekey=seconds["rekey"], **values
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid cluster store option {text[:64]!r}: expected KEY=VALUE")
    return name, value


def _address(text: str) -> str:
    """An address for the other hosts, or the one of an interface of this host.
    Raises as :func:`configured`."""
    address = _named(text)
    try:
        check_address(address)
    except ValueError as e:
        raise InvalidArgument(f"invalid cluster-advertise {text[:64]!r}: {e}") from e
    return address


def _named(text: str) -> str:
    """An address, or that of an interface. A port, which Docker required there, is ignored."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    name = text.rpartition(":")[0] or text
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return _of_interface(name)


def _of_interface(name: str) -> str:
    from wherry.linux import rtnetlink as rt
    from wherry.linux.netlink import NetlinkSocket

    try:
        index = socket.if_nametoindex(name)
    except OSError as e:
        raise InvalidArgument(f"invalid cluster-advertise {name[:64]!r}: no address and no interface") from e
    with NetlinkSocket() as sock:
        found = [a.ip for i, a in rt.addresses(sock) if i == index and not a.ip.is_link_local]
    if not found:
        raise InvalidArgument(f"invalid cluster-advertise {name}: the interface has no address")
    return str(min(found, key=lambda a: a.version))
