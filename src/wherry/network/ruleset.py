"""The nft table's text: rules that never change, and the elements that networks and published ports add.

Sets and maps, each once a family (``4``, ``6``; the rest of this page leaves the digit out):

    published   map  address . proto . port -> container address . port
    any         map  proto . port           -> container address . port      (0.0.0.0 and ::)
    ranges      map  address . proto . port -> container address             (port stays; intervals)
    guarded     set  address . proto . port whose callers are on a list      (intervals)
    admitted    set  caller . address . proto . port: the lists              (intervals)
    held        set  proto . port: every published port
    open        set  container address . proto . port, of networks in mode ``routed``
    own         set  bridge . subnet
    masqueraded set  subnets that leave under an address of this host
    snat        map  subnet -> the address they leave under

    bridges     set  our bridges;  internal, unprotected, routed: those of such networks
    same_bridge set  bridge . bridge, each with itself
    trusted     set  interface . bridge: direct routing is allowed
    relayed     set  TCP ports that are carried on ::1

    raw prerouting  drop packets from a bridge from or to the host's loopback addresses: ``route_localnet``
                    lets the host reach 127.0.0.1:<port>, and would otherwise open it to containers
    nat prerouting  to an address of this host: look the port up. Never for 127.0.0.0/8, which no packet from
                    a wire may seek, so that a port published on 127.0.0.1 stays there. A port with a list of
                    callers drops the others
    nat output      the same for the host's own programs, 127.0.0.0/8 included, and without lists. Not for
                    ::1, to which the kernel lets no answer back: it goes to ``relay``
    nat postrouting leaving the subnet: masquerade. Host loopback into a bridge: masquerade, the container
                    could not answer 127.0.0.1. From a subnet by a published port back into it: masquerade,
                    or the answer would go straight to the asker, who asked someone else
    filter forward  into a bridge: answers, published ports, and the bridge's own; nothing else. Out of an
                    internal network: nothing

Verdicts are ``accept`` for this table only: a drop in any other table of the host still drops.

With ``obey_host`` a published port answers only callers that the host's own input rules would accept.
Forwarded packets never pass those rules. So a caller's first packet is not translated, but goes to the host's
input hook. If it reaches the last chain there, which is ours, the caller is remembered for a minute
(``passed``) and the packet is dropped. The caller sends it again, and then it is translated.

Encrypted overlay networks add two chains, which drop unencrypted packets to and from their UDP port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from itertools import groupby

from wherry.errors import Internal
from wherry.network.options import GatewayMode
from wherry.network.types import LOOPBACK6, PROTOCOLS
from wherry.state.networks import PublishedRow

_IFNAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_PATH = re.compile(r"[A-Za-z0-9_./@+-]{1,100}")
"""Paths that nft accepts unchanged in a comment; a comment has room for 128 bytes."""
RANGE_MIN = 4
"""From this many consecutive ports on they become one element; fewer are cheaper as hash elements."""
ANY4, ANY6 = "0.0.0.0", "::"
RELAYED = (ANY6, LOOPBACK6)
"""The address on which the relay makes published TCP ports available."""

Address = IPv4Address | IPv6Address
Place = Callable[[str, str], None]
Elements = Mapping[str, frozenset[str]]
"""The content of each set and map, by name, in nft(8) syntax."""

_SETS = """\
add map inet {t} published{n} {{ type {a} . inet_proto . inet_service : {a} . inet_service; }}
add map inet {t} any{n} {{ type inet_proto . inet_service : {a} . inet_service; }}
add map inet {t} ranges{n} {{ type {a} . inet_proto . inet_service : {a}; flags interval; }}
add set inet {t} guarded{n} {{ type {a} . inet_proto . inet_service; flags interval; }}
add set inet {t} admitted{n} {{ type {a} . {a} . inet_proto . inet_service; flags interval; }}
add set inet {t} held{n} {{ type inet_proto . inet_service; }}
add set inet {t} passed{n} {{ type {a} . {a} . inet_proto . inet_service; flags dynamic,timeout; \
size 65536; }}
add set inet {t} open{n} {{ type {a} . inet_proto . inet_service; }}
add set inet {t} own{n} {{ type ifname . {a}; flags interval; }}
add set inet {t} masqueraded{n} {{ type {a}; flags interval; }}
add map inet {t} snat{n} {{ type {a} : {a}; flags interval; }}
add set inet {t} unprotected{n} {{ type ifname; }}
add set inet {t} routed{n} {{ type ifname; }}
add chain inet {t} arrive{n}
add chain inet {t} admit{n}
add chain inet {t} publish{n}
"""

_HEAD = """\
add table inet {t}
delete table inet {t}
add table inet {t}{comment}
{sets4}{sets6}\
add set inet {t} bridges {{ type ifname; }}
add set inet {t} internal {{ type ifname; }}
add set inet {t} same_bridge {{ type ifname . ifname; }}
add set inet {t} trusted {{ type ifname . ifname; }}
add set inet {t} relayed {{ type inet_service; }}
add chain inet {t} guard {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet {t} prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet {t} output {{ type nat hook output priority -100; policy accept; }}
add chain inet {t} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
add chain inet {t} forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet {t} into_bridge
add chain inet {t} from_internal
add rule inet {t} guard iifname @bridges ip saddr 127.0.0.0/8 drop
add rule inet {t} guard iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet {t} guard iifname @bridges ip6 saddr ::1 drop
add rule inet {t} guard iifname @bridges ip6 daddr ::1 drop
add rule inet {t} prerouting ip daddr 127.0.0.0/8 return
add rule inet {t} prerouting fib daddr type local \
meta nfproto vmap {{ ipv4 : goto arrive4, ipv6 : goto arrive6 }}
{relay}\
add rule inet {t} output ip6 daddr ::1 return
add rule inet {t} output fib daddr type local \
meta nfproto vmap {{ ipv4 : goto publish4, ipv6 : goto publish6 }}
{rules4}{rules6}\
add rule inet {t} forward iifname @internal jump from_internal
add rule inet {t} forward oifname @bridges goto into_bridge
add rule inet {t} from_internal iifname . oifname @same_bridge return
add rule inet {t} from_internal drop
add rule inet {t} into_bridge ct state established,related accept
add rule inet {t} into_bridge ct status dnat accept
add rule inet {t} into_bridge iifname . oifname @same_bridge accept
add rule inet {t} into_bridge iifname . oifname @trusted accept
{into4}{into6}\
add rule inet {t} into_bridge drop
"""

_RULES = """\
add rule inet {t} admit{n} {ip} saddr . {ip} daddr . meta l4proto . th dport @admitted{n} return
add rule inet {t} admit{n} drop
add rule inet {t} arrive{n} {ip} daddr . meta l4proto . th dport @guarded{n} jump admit{n}
{obey}\
add rule inet {t} arrive{n} goto publish{n}
add rule inet {t} publish{n} dnat {ip} to {ip} daddr . meta l4proto . th dport map @published{n}
add rule inet {t} publish{n} dnat {ip} to meta l4proto . th dport map @any{n}
add rule inet {t} publish{n} dnat {ip} to {ip} daddr . meta l4proto . th dport map @ranges{n}
add rule inet {t} postrouting oifname @bridges {ip} saddr {loopback} masquerade
add rule inet {t} postrouting oifname . {ip} saddr @own{n} ct status dnat masquerade
add rule inet {t} postrouting oifname . {ip} saddr @own{n} return
add rule inet {t} postrouting snat {ip} to {ip} saddr map @snat{n}
add rule inet {t} postrouting {ip} saddr @masqueraded{n} masquerade
"""
_OBEY_CHAIN = "add chain inet {t} late_input {{ type filter hook input priority 300; policy accept; }}\n"
_OBEY = """\
add rule inet {t} arrive{n} {ip} saddr . {ip} daddr . meta l4proto . th dport @passed{n} goto publish{n}
add rule inet {t} arrive{n} iifname != @bridges return
add rule inet {t} late_input iifname lo accept
add rule inet {t} late_input {ip} daddr != {loopback} ct state new meta l4proto . th dport @held{n} \
update @passed{n} {{ {ip} saddr . {ip} daddr . meta l4proto . th dport timeout 60s }} drop
"""
_INTO = """\
add rule inet {t} into_bridge {ip} daddr . meta l4proto . th dport @open{n} accept
add rule inet {t} into_bridge oifname @unprotected{n} meta nfproto ipv{n} accept
add rule inet {t} into_bridge oifname @routed{n} meta l4proto {icmp} accept
"""
_RELAY = """\
add rule inet {t} output ip6 daddr ::1 tcp dport @relayed dnat ip6 to [::1]:{port}
"""
_SEALED = """\
add chain inet {t} sealed_in {{ type filter hook input priority filter; policy accept; }}
add chain inet {t} sealed_out {{ type filter hook output priority filter; policy accept; }}
add rule inet {t} sealed_in udp dport {port} meta ipsec missing drop
add rule inet {t} sealed_out udp dport {port} rt ipsec missing drop
"""


@dataclass(frozen=True)
class FamilyRules:
    """A bridge network's subnet of one family. ``snat``: the source address outside, ``""`` for any."""

    subnet: str
    mode: GatewayMode = "nat"
    masquerade: bool = True
    snat: str = ""


@dataclass(frozen=True)
class Bridged:
    """A network in the firewall's view: everything behind one of the host's interfaces.

    :ivar trusted: interfaces from which its containers can be reached directly. :ivar binding: the host
        address for published ports without an address, ``""`` for the daemon's default. :ivar sealed: its
        packets between hosts use IPsec only.
    """

    bridge: str
    subnets: tuple[FamilyRules, ...] = ()
    internal: bool = False
    icc: bool = True
    trusted: tuple[str, ...] = ()
    binding: str = ""
    sealed: bool = False

    def routed(self, family: int) -> bool:
        """Whether the containers' own addresses of a family are reachable, instead of ports of the host."""
        return any(r.mode == "routed" and ip_network(r.subnet).version == family for r in self.subnets)


def head(table: str, *, obey_host: bool = False, sealed: int = 0, relay: int = 0, root: str = "") -> str:
    """A new empty table that replaces the present one. :param sealed: a UDP port that only IPsec packets may
    use, 0 for none.
    :param relay: the port of the relay on ``::1``, 0 for none. :param root: the daemon's root, for people who
        list the table.
    """
    parts: dict[str, str] = {}
    for n, a, ip, loopback, icmp in (
        (4, "ipv4_addr", "ip", "127.0.0.0/8", "icmp"),
        (6, "ipv6_addr", "ip6", "::1", "ipv6-icmp"),
    ):
        values = {"t": table, "n": n, "a": a, "ip": ip, "loopback": loopback, "icmp": icmp}
        obey = _OBEY.format(**values) if obey_host else ""
        parts[f"sets{n}"] = _SETS.format(**values)
        parts[f"rules{n}"] = _RULES.format(**values, obey=obey)
        parts[f"into{n}"] = _INTO.format(**values)
    if obey_host:
        parts["sets6"] += _OBEY_CHAIN.format(t=table)
    parts["relay"] = _RELAY.format(t=table, port=relay) if relay else ""
    parts["comment"] = f' {{ comment "root {root}"; }}' if _PATH.fullmatch(root) else ""
    text = _HEAD.format(t=table, **parts)
    return text + _SEALED.format(t=table, port=sealed) if sealed else text


def of_network(network: Bridged) -> Elements:
    """The elements for a network.
    :raises Internal: a name or subnet that is not safe to write into the text."""
    bridge = quoted(network.bridge)
    out: dict[str, set[str]] = {"bridges": {bridge}}
    if network.internal:
        out["internal"] = {bridge}
    if network.icc:
        out["same_bridge"] = {f"{bridge} . {bridge}"}
    if network.trusted:
        out["trusted"] = {f"{quoted(name)} . {bridge}" for name in network.trusted}
    for rules in network.subnets:
        subnet = ip_network(rules.subnet)
        n = subnet.version
        out.setdefault(f"own{n}", set()).add(f"{bridge} . {subnet}")
        if rules.mode == "routed":
            out[f"routed{n}"] = {bridge}
        elif rules.mode == "nat-unprotected":
            out[f"unprotected{n}"] = {bridge}
        if not rules.masquerade or network.internal or not rules.mode.startswith("nat"):
            continue
        if rules.snat:
            out.setdefault(f"snat{n}", set()).add(f"{subnet} : {ip_address(rules.snat)}")
        else:
            out.setdefault(f"masqueraded{n}", set()).add(str(subnet))
    return _frozen(out)


def of_ports(ports: Iterable[PublishedRow]) -> Elements:
    """The elements for published ports.

    A row whose host address is the container's own address opens the container's port (networks in mode
    ``routed``).
    :raises Internal: a value that is not safe to write into the text.
    """
    out: dict[str, set[str]] = {}

    def place(name: str, element: str) -> None:
        out.setdefault(name, set()).add(element)

    for key, group in groupby(sorted(ports, key=_order), key=_same_target):
        rows = list(group)
        host_ip, ip = ip_address(key[0]), ip_address(key[2])
        if key[1] == "tcp" and key[0] in RELAYED:
            for row in rows:
                place("relayed", str(row.host_port))
        if key[0] == LOOPBACK6:
            continue  # by the relay, without NAT
        if host_ip.version != ip.version:
            raise Internal(f"cannot publish {host_ip} for {ip}: they are of different families")
        for run in _runs(rows):
            _place_run(run, host_ip, ip, place)
    return _frozen(out)


def _place_run(run: Sequence[PublishedRow], host_ip: Address, ip: Address, place: Place) -> None:
    n = ip.version
    first, proto = run[0], run[0].proto
    if first.host_ip == first.ip:
        for row in run:
            place(f"open{n}", f"{ip} . {proto} . {row.container_port}")
        return
    anywhere = str(host_ip) in (ANY4, ANY6)
    ports = f"{first.host_port}-{run[-1].host_port}" if len(run) > 1 else str(first.host_port)
    everywhere = f"{host_ip}/0" if anywhere else str(host_ip)
    if len(run) >= RANGE_MIN:
        place(f"ranges{n}", f"{everywhere} . {proto} . {ports} : {ip}")
    else:
        for row in run:
            target = f"{ip} . {row.container_port}"
            if anywhere:
                place(f"any{n}", f"{proto} . {row.host_port} : {target}")
            else:
                place(f"published{n}", f"{host_ip} . {proto} . {row.host_port} : {target}")
    for row in run:
        place(f"held{n}", f"{proto} . {row.host_port}")
    if first.sources:
        place(f"guarded{n}", f"{everywhere} . {proto} . {ports}")
        for source in _collapsed(first.sources, n):
            place(f"admitted{n}", f"{source} . {everywhere} . {proto} . {ports}")


def _collapsed(sources: str, family: int) -> list[str]:
    """A family's subnets without overlaps, as an interval set requires."""
    given = [s for s in sources.split(",") if (":" in s) == (family == 6)]
    if family == 6:
        return [str(n) for n in collapse_addresses(map(IPv6Network, given))]
    return [str(n) for n in collapse_addresses(map(IPv4Network, given))]


def _same_target(row: PublishedRow) -> tuple[str, str, str, str, bool]:
    number_ok = 0 < row.host_port < 65536 and 0 < row.container_port < 65536
    if row.proto not in PROTOCOLS or not number_ok:
        raise Internal(f"cannot publish {row.host_ip}:{row.host_port}/{row.proto}: no such port")
    return (row.host_ip, row.proto, row.ip, row.sources, row.host_port == row.container_port)


def _order(row: PublishedRow) -> tuple[tuple[str, str, str, str, bool], int]:
    return _same_target(row), row.host_port


def _runs(rows: Sequence[PublishedRow]) -> Iterable[list[PublishedRow]]:
    """Groups of consecutive ports that are not renumbered; every other port by itself."""
    run: list[PublishedRow] = []
    for row in rows:
        follows = run and row.host_port == run[-1].host_port + 1 and row.host_port == row.container_port
        if run and not follows:
            yield from _usable(run)
            run = []
        run.append(row)
    if run:
        yield from _usable(run)


def _usable(run: list[PublishedRow]) -> Iterable[list[PublishedRow]]:
    if len(run) >= RANGE_MIN:
        yield run
    else:
        yield from ([row] for row in run)


def commands(table: str, verb: str, elements: Elements) -> str:
    """``add`` or ``delete`` commands for elements."""
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(sorted(found))} }}\n"
        for name, found in sorted(elements.items())
        if found
    )


def minus(one: Elements, other: Elements) -> Elements:
    """What is in ``one`` and not in ``other``."""
    empty: frozenset[str] = frozenset()
    return {
        name: found - other.get(name, empty) for name, found in one.items() if found - other.get(name, empty)
    }


def together(many: Iterable[Elements]) -> Elements:
    out: dict[str, set[str]] = {}
    for elements in many:
        for name, found in elements.items():
            out.setdefault(name, set()).update(found)
    return _frozen(out)


def _frozen(elements: Mapping[str, set[str]]) -> Elements:
    return {name: frozenset(found) for name, found in elements.items() if found}


def quoted(name: str) -> str:
    """An interface's name in quotes. :raises Internal: it has unusual characters."""
    if not _IFNAME.fullmatch(name):
        raise Internal(f"cannot write a firewall rule for interface {name!r}: the name has odd characters")
    return f'"{name}"'
