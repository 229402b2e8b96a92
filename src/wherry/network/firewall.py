"""One nft table of our own, whose number of rules does not grow with containers or ports.

    published       map  address . proto . port -> container address . port
    published_any   map  proto . port           -> container address . port      (0.0.0.0)
    bridges         set  our bridges
    same_bridge     set  bridge . bridge, each with itself

    raw prerouting  what comes from a bridge neither claims nor seeks the host's loopback: ``route_localnet``,
                    which lets the host reach 127.0.0.1:<port>, would otherwise open it to containers
    nat prerouting  to an address of this host: look the port up. Never for 127.0.0.0/8, which no packet from
                    a wire may seek, so that a port published on 127.0.0.1 stays there
    nat output      the same for the host's own programs, 127.0.0.0/8 included
    nat postrouting leaving the subnet: masquerade. Host loopback into a bridge: masquerade, the container
                    could not answer 127.0.0.1. From a subnet by a published port back into it: masquerade,
                    or the answer would go straight to the asker, who asked someone else
    filter forward  into a bridge: answers, published ports, and the bridge's own; nothing else

Verdicts are ``accept`` for this table only: a drop in any other table of the host still drops.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from wherry.errors import Internal
from wherry.linux.nft import Nft, NftError
from wherry.network.ports import ANY
from wherry.network.types import PROTOCOLS, Instance
from wherry.state.networks import PublishedRow

_IFNAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")

_HEAD = """\
add table inet {t}
delete table inet {t}
add table inet {t}
add map inet {t} published {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {t} published_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add set inet {t} bridges {{ type ifname; }}
add set inet {t} same_bridge {{ type ifname . ifname; }}
add chain inet {t} guard {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet {t} prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet {t} output {{ type nat hook output priority -100; policy accept; }}
add chain inet {t} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
add chain inet {t} forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet {t} publish
add chain inet {t} into_bridge
add rule inet {t} guard iifname @bridges ip saddr 127.0.0.0/8 drop
add rule inet {t} guard iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet {t} prerouting ip daddr 127.0.0.0/8 return
add rule inet {t} prerouting fib daddr type local goto publish
add rule inet {t} output fib daddr type local goto publish
add rule inet {t} publish dnat ip to ip daddr . meta l4proto . th dport map @published
add rule inet {t} publish dnat ip to meta l4proto . th dport map @published_any
add rule inet {t} postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule inet {t} forward oifname @bridges goto into_bridge
add rule inet {t} into_bridge ct state established,related accept
add rule inet {t} into_bridge ct status dnat accept
add rule inet {t} into_bridge iifname . oifname @same_bridge accept
add rule inet {t} into_bridge drop
"""

_BRIDGE = """\
add element inet {t} bridges {{ "{b}" }}
add element inet {t} same_bridge {{ "{b}" . "{b}" }}
add rule inet {t} postrouting oifname "{b}" ip saddr {s} ct status dnat masquerade
"""
_MASQUERADE = 'add rule inet {t} postrouting oifname != "{b}" ip saddr {s} masquerade\n'


@dataclass(frozen=True)
class Bridged:
    """A bridge network as the firewall sees it."""

    bridge: str
    subnet: str
    masquerade: bool


class _Chain(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = ""


class _Entry(msgspec.Struct, frozen=True):
    chain: _Chain | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: list[_Entry]


class Firewall:
    """The table of one instance. Every method is one transaction."""

    def __init__(self, instance: Instance, nft: Nft) -> None:
        self._table = instance.table
        self._nft = nft

    def rebuild(self, bridges: Sequence[Bridged], ports: Iterable[PublishedRow]) -> None:
        """Put the whole table in place of what there was; connections live on, they are the kernel's.

        :raises Internal: the kernel refused, with nft's words.
        """
        parts = [_HEAD.format(t=self._table)]
        for b in bridges:
            values = {"t": self._table, "b": _ifname(b.bridge), "s": str(ipaddress.IPv4Network(b.subnet))}
            parts.append(_BRIDGE.format(**values))
            if b.masquerade:
                parts.append(_MASQUERADE.format(**values))
        parts.append(self._elements("add", ports))
        self._nft.run("".join(parts))

    def publish(self, ports: Sequence[PublishedRow]) -> None:
        """:raises NftError: the table is not there, or leads one of the ports elsewhere."""
        if ports:
            self._nft.run(self._elements("add", ports))

    def unpublish(self, ports: Sequence[PublishedRow]) -> None:
        """Remove ports; those that are not there are fine."""
        if not ports:
            return
        try:
            self._nft.run(self._elements("delete", ports))
            return
        except NftError as e:
            if not e.missing:
                raise
        for port in ports:
            try:
                self._nft.run(self._elements("delete", [port]))
            except NftError as e:
                if not e.missing:
                    raise

    def drops_of_others(self) -> list[str]:
        """Chains of other tables that drop what is forwarded unless they are told otherwise, as
        ``family table chain``: containers then reach no other host, which we leave to whoever decided it."""
        listing = msgspec.json.decode(self._nft.run("list chains", json=True), type=_Listing)
        return [
            f"{c.family} {c.table} {c.name}"
            for c in (entry.chain for entry in listing.nftables)
            if c is not None and (c.hook, c.policy) == ("forward", "drop") and c.table != self._table
        ]

    def remove(self) -> None:
        """Remove the table."""
        self._nft.run(f"add table inet {self._table}\ndelete table inet {self._table}\n")

    def _elements(self, verb: str, ports: Iterable[PublishedRow]) -> str:
        exact, wild = [], []
        for p in ports:
            if p.proto not in PROTOCOLS or not (0 < p.host_port < 65536 and 0 < p.container_port < 65536):
                raise Internal(f"cannot publish {p.host_ip}:{p.host_port}/{p.proto}: no such port")
            target = f"{ipaddress.IPv4Address(p.ip)} . {p.container_port}"
            if p.host_ip == ANY:
                wild.append(f"{p.proto} . {p.host_port} : {target}")
            else:
                exact.append(f"{ipaddress.IPv4Address(p.host_ip)} . {p.proto} . {p.host_port} : {target}")
        commands = ""
        for name, elements in (("published", exact), ("published_any", wild)):
            if elements:
                commands += f"{verb} element inet {self._table} {name} {{ {', '.join(elements)} }}\n"
        return commands


def _ifname(name: str) -> str:
    if not _IFNAME.fullmatch(name):
        raise Internal(f"cannot write a firewall rule for interface {name!r}: the name has odd characters")
    return name
