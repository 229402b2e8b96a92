"""A service on its networks: the mode, the endpoints, the ports."""

from __future__ import annotations

from wherry.compose.places import ComposeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.compose.project import Project

    Object = dict[str, Any]
    Resolve = Callable[[str], str]
    """Maps a service's name to the id of one of its containers."""


def by_priority(service: Any) -> list[str]:
    """A service's networks: the higher priority first, then by name."""
    networks = service.get("networks") or {}
    return sorted(networks, key=lambda name: (-((networks[name] or {}).get("priority") or 0), name))


def mode_of(project: Project, service: Any, resolve: Resolve) -> str:
    """The network mode of the container."""
    mode = service.get("network_mode") or ""
    if mode:
        return namespace(mode, resolve)
    networks = by_priority(service)
    return project.resource_name("networks", networks[0]) if networks else "none"


def namespace(mode: str, resolve: Resolve) -> str:
    """``service:NAME`` means a container of that service."""
    if mode.startswith("service:"):
        return "container:" + resolve(mode.removeprefix("service:"))
    return mode


def endpoints(
    project: Project, name: str, service: Any, container: str, links: Sequence[str], *, aliases: bool = True
) -> Object:
    """The container's endpoint settings, by the network's name."""
    made: Object = {}
    for key in by_priority(service):
        wanted = (service["networks"] or {}).get(key) or {}
        names = [container, name, *(wanted.get("aliases") or ())] if aliases else []
        endpoint: Object = {"Aliases": list(dict.fromkeys(names))}
        if links:
            endpoint["Links"] = list(links)
        ipam = {
            "IPv4Address": wanted.get("ipv4_address"),
            "IPv6Address": wanted.get("ipv6_address"),
            "LinkLocalIPs": list(wanted.get("link_local_ips") or ()),
        }
        if any(ipam.values()):
            endpoint["IPAMConfig"] = {member: value for member, value in ipam.items() if value}
        options = dict(wanted.get("driver_opts") or {})
        if wanted.get("interface_name"):
            options["com.docker.network.endpoint.ifname"] = wanted["interface_name"]
        if options:
            endpoint["DriverOpts"] = options
        if wanted.get("mac_address") or service.get("mac_address"):
            endpoint["MacAddress"] = wanted.get("mac_address") or service["mac_address"]
        if wanted.get("gw_priority"):
            endpoint["GwPriority"] = wanted["gw_priority"]
        made[project.resource_name("networks", key)] = endpoint
    return made


def links_of(service: Any, containers: Callable[[str], Sequence[tuple[str, str]]]) -> list[str]:
    """``links`` and ``external_links`` in the daemon's form: ``CONTAINER:ALIAS``.

    :param containers: the containers of a service: their names, and their names within the project
    (``web-1``).
    """
    found: list[str] = []
    for link in service.get("links") or ():
        other, _, alias = link.partition(":")
        for container, short in containers(other):
            found += [f"{container}:{one}" for one in (alias or other, short, container)]
    for link in service.get("external_links") or ():
        container, _, alias = link.partition(":")
        found.append(f"{container}:{alias or container}")
    return list(dict.fromkeys(found))


def ports_of(service: Any) -> tuple[Object, Object]:
    """Exposed ports, and their bindings on the host.

    :raises ComposeError: a port is not a number.
    """
    exposed: Object = {}
    bindings: Object = {}
    for text in service.get("expose") or ():
        number, _, protocol = str(text).partition("/")
        first, _, last = number.partition("-")
        numbers = [one for one in (first, last or first) if one.isdecimal() and int(one) <= 65535]
        if len(numbers) < 2:
            raise ComposeError(f"invalid port in expose: {text}")
        for port in range(int(first), int(last or first) + 1):
            exposed[f"{port}/{protocol or 'tcp'}"] = {}
    for one in service.get("ports") or ():
        key = f"{one.get('target')}/{one.get('protocol') or 'tcp'}"
        exposed[key] = {}
        binding = {"HostIp": one.get("host_ip") or "", "HostPort": str(one.get("published") or "")}
        bindings.setdefault(key, []).append(binding)
    return exposed, bindings
