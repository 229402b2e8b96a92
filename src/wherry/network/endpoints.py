"""Endpoints: addresses and names are chosen and stored before anything of the endpoint is made."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.model import typed
from wherry.model.container import EndpointRequest
from wherry.network import ipam, options
from wherry.network.drivers import NetworkDriver
from wherry.network.types import DHCP, Endpoint, Family, Network, Owner
from wherry.state.networks import EndpointRow, Networks

_IFNAME_OPTION = "com.docker.network.endpoint.ifname"
_SYSCTLS_OPTION = "com.docker.network.endpoint.sysctls"
_MAC_OPTION = "com.docker.network.endpoint.macaddress"
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?:IFNAME|ifname)\.([a-z0-9_]+)")
"""docker's command line converts the whole option to lower case."""
_VALUE = re.compile(r"[0-9A-Za-z ./:-]{1,64}")
_ALIAS = re.compile(r"[^\s\x00-\x1f\x7f/]{1,253}")


def check(network: Network, request: EndpointRequest) -> None:
    """Check a request to be on a network. All mistakes are said at once, as Docker does.

    :raises InvalidArgument: a request that this network, or any network, cannot fulfil.
    """
    if request.mac_address:
        ipam.check_mac(request.mac_address)
    mistakes = [*_mistaken_addresses(network, request), *_mistaken_names(network, request)]
    try:
        _driver_options(request, network.driver)
    except InvalidArgument as e:
        mistakes.append(e.message)
    if mistakes:
        listed = mistakes if len(mistakes) == 1 else [f"* {mistake}" for mistake in mistakes]
        raise InvalidArgument("invalid endpoint settings:\n" + "\n".join(listed))


def _mistaken_addresses(network: Network, request: EndpointRequest) -> list[str]:
    config = request.ipam_config
    if config is None:
        return []
    asked: tuple[tuple[Family, str, type[IPv4Address | IPv6Address]], ...] = (
        (4, config.ipv4_address, IPv4Address),
        (6, config.ipv6_address, IPv6Address),
    )
    mistakes = []
    if not network.has_names and (config.ipv4_address or config.ipv6_address):
        mistakes.append("user specified IP address is supported on user defined networks only")
    for family, text, kind in asked:
        if not text:
            continue
        try:
            address = kind(text)
        except ValueError:
            mistakes.append(f"invalid IPv{family} address: {text[:64]}")
            continue
        if network.ipam_driver != "default":
            continue
        subnets = network.subnets_of(family)
        if not subnets:
            mistakes.append(
                "user specified IP address is supported only when connecting to networks with user "
                "configured subnets"
            )
        elif network.has_names and not any(address in subnet.network for subnet in subnets):
            mistakes.append(f"no configured subnet or ip-range contain the IP address {address}")
    for text in config.link_local_ips or ():
        try:
            _link_local(text)
        except InvalidArgument as e:
            mistakes.append(e.message)
    return mistakes


def _mistaken_names(network: Network, request: EndpointRequest) -> list[str]:
    mistakes = [
        f"invalid network alias {alias[:80]!r}"
        for alias in request.aliases or ()
        if not _ALIAS.fullmatch(alias)
    ]
    if request.aliases and not network.has_names:
        mistakes.append("network-scoped alias is supported only for containers in user defined networks")
    try:
        _links(request)
    except InvalidArgument as e:
        mistakes.append(e.message)
    return mistakes


def _link_local(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid link-local IP address: {text[:64]}") from e
    if not address.is_link_local:
        raise InvalidArgument(
            f"invalid link-local IP address {address}: it is not one of 169.254.0.0/16 or fe80::/10"
        )
    return str(address)


def _links(request: EndpointRequest) -> dict[str, str]:
    """``name[:alias]`` as a mapping from alias to name."""
    links = {}
    for text in request.links or ():
        name, _, alias = text.partition(":")
        if not _ALIAS.fullmatch(name) or not _ALIAS.fullmatch(alias or name):
            raise InvalidArgument(f"bad format for links: {text[:80]}")
        links[alias or name] = name
    return links


def _driver_options(request: EndpointRequest, driver: str) -> tuple[str, str, dict[str, str]]:
    """The interface's name and MAC address (``""`` if not requested), and its parameters."""
    name, mac, sysctls = "", "", {}
    for option, text in (request.driver_opts or {}).items():
        if option == _IFNAME_OPTION:
            name = options.ifname(option, text)
        elif option == _MAC_OPTION:
            mac = ipam.check_mac(text)
        elif option == _SYSCTLS_OPTION:
            sysctls = _sysctls(text)
        else:
            raise InvalidArgument(
                f"invalid driver option {option[:80]!r}: endpoints of {driver} do not have it"
            )
    return name, mac, sysctls


def _sysctls(text: str) -> dict[str, str]:
    """``net.ipv4.conf.IFNAME.log_martians=1,…``, by the parts before and after the interface's name."""
    found = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        match = _SYSCTL.fullmatch(key.strip())
        if not equals or match is None or not _VALUE.fullmatch(value.strip()):
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{part[:80]}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        found[f"{match[1]}.{match[2]}.{match[3]}"] = value.strip()
    return found


class Endpoints:
    """Makes endpoints. Call it within a database transaction, which protects what was chosen."""

    def __init__(self, rows: Networks) -> None:
        self._rows = rows

    def make(
        self,
        container_id: str,
        network: Network,
        request: EndpointRequest,
        driver: NetworkDriver,
        *,
        owner: Owner,
        taken: Collection[str] = (),
        mac_address: str = "",
    ) -> Endpoint:
        """Choose addresses and names, and insert the row.

        :param driver: of the network. :param taken: names of the container's other interfaces.
        :param mac_address: used unless the request has one.
        :raises InvalidArgument: as :func:`check`. :raises Conflict: an address or the interface's name is
            taken.
        :raises NotFound: the network has just been removed.
        """
        check(network, request)
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            network_id=network.id,
            network_name=network.name,
            container_id=container_id,
            aliases=tuple(request.aliases or ()),
            gw_priority=request.gw_priority,
        )
        if driver.traits.interface:
            endpoint = self._furnish(endpoint, network, request, owner, taken, mac_address)
            endpoint = msgspec.structs.replace(endpoint, host_ifname=driver.host_ifname(endpoint))
        if not self._rows.insert_endpoint(row_of(endpoint)):
            if self._rows.address_taken(network.id, endpoint.ip or endpoint.ip6):
                raise Conflict("Address already in use")
            raise NotFound(f"network {network.name} not found")
        return endpoint

    def _furnish(
        self,
        endpoint: Endpoint,
        network: Network,
        request: EndpointRequest,
        owner: Owner,
        taken: Collection[str],
        mac_address: str,
    ) -> Endpoint:
        asked_name, asked_mac, sysctls = _driver_options(request, network.driver)
        config = request.ipam_config
        addresses = self._addresses(
            network, config.ipv4_address if config else "", config.ipv6_address if config else ""
        )
        mac = asked_mac or request.mac_address or mac_address
        if mac:
            mac = ipam.check_mac(mac)
            if self._rows.mac_taken(network.id, mac):
                raise Conflict(f"MAC address {mac} is already in use on network {network.name}")
        else:
            mac = self._free_mac(network, addresses)
        if asked_name and asked_name in taken:
            raise Conflict(f"interface name {asked_name} is already in use in the container")
        return msgspec.structs.replace(
            endpoint,
            **addresses,
            mac=mac,
            ifname=asked_name or free_name(options.common(network.options).prefix, taken),
            dns_names=dns_names(owner, endpoint) if network.has_names else (),
            links=_links(request),
            link_local=tuple(_link_local(t) for t in (config.link_local_ips or ())) if config else (),
            sysctls=sysctls,
        )

    def _addresses(self, network: Network, wanted4: str, wanted6: str) -> dict[str, object]:
        if network.ipam_driver == DHCP:
            return {"ip": wanted4}
        if network.pools:
            return _given(network, wanted4, wanted6)
        out: dict[str, object] = {}
        families: Sequence[tuple[Family, str, str]] = ((4, "", wanted4), (6, "6", wanted6))
        for family, suffix, wanted in families:
            if network.ipam_driver == "default" and network.subnets_of(family):
                ip, subnet = ipam.allocate(self._rows, network, wanted, family=family)
                out |= {
                    f"ip{suffix}": ip,
                    f"prefix_len{suffix}": subnet.prefix_len,
                    f"gateway{suffix}": "" if network.internal else subnet.router,
                }
        return out

    def _free_mac(self, network: Network, addresses: Mapping[str, object]) -> str:
        address = str(addresses.get("ip") or addresses.get("ip6") or "")
        mac = ipam.mac_for(address) if address else _random_mac()
        while self._rows.mac_taken(network.id, mac):
            mac = _random_mac()
        return mac


def _given(network: Network, *addresses: str) -> dict[str, object]:
    """Addresses from an IPAM plugin. :raises InvalidArgument: not in one of the network's subnets."""
    out: dict[str, object] = {}
    for ip in filter(None, addresses):
        subnet = next((s for s in network.subnets if ip_address(ip) in s.network), None)
        if subnet is None:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {ip}")
        suffix = "6" if subnet.family == 6 else ""
        gateway = "" if network.internal else subnet.gateway
        out |= {f"ip{suffix}": ip, f"prefix_len{suffix}": subnet.prefix_len, f"gateway{suffix}": gateway}
    return out


def _random_mac() -> str:
    return "02:42:" + secrets.token_bytes(4).hex(":")


def free_name(prefix: str, taken: Collection[str]) -> str:
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def dns_names(owner: Owner, endpoint: Endpoint) -> tuple[str, ...]:
    """The names that others can resolve: its name, the aliases, the short id, the host name; each once."""
    names = (owner.name, *endpoint.aliases, endpoint.container_id[:12], owner.hostname)
    return tuple(dict.fromkeys(n for n in names if n))


def named(endpoint: Endpoint, owner: Owner, requests: Mapping[str, EndpointRequest]) -> Endpoint:
    """The endpoint with all the names that its container asked for."""
    request = requests.get(endpoint.network_name) or requests.get(endpoint.network_id)
    aliases = tuple((request.aliases if request is not None else None) or ())
    new = msgspec.structs.replace(endpoint, aliases=aliases)
    return msgspec.structs.replace(new, dns_names=dns_names(owner, new) if endpoint.dns_names else ())


def without(endpoint: Endpoint, names: Collection[str]) -> Endpoint:
    """The endpoint without names that another container has now."""
    return msgspec.structs.replace(
        endpoint,
        aliases=tuple(n for n in endpoint.aliases if n not in names),
        dns_names=tuple(n for n in endpoint.dns_names if n not in names),
    )


def row_of(endpoint: Endpoint) -> EndpointRow:
    return EndpointRow(
        endpoint.id,
        endpoint.network_id,
        endpoint.container_id,
        endpoint.ip or None,
        msgspec.json.encode(endpoint),
        endpoint.ip6 or None,
        endpoint.mac or None,
    )


def endpoint_of(row: EndpointRow) -> Endpoint:
    return typed.from_json(row.record, Endpoint)


def gateway_of(endpoints: Sequence[Endpoint], family: Family) -> Endpoint | None:
    """The endpoint that has the default route: of those with a gateway the one with the highest priority,
    then the first by the name of its network (API, ``GwPriority``)."""
    able = [e for e in endpoints if (e.gateway if family == 4 else e.gateway6)]
    return min(able, key=lambda e: (-e.gw_priority, e.network_name), default=None)
