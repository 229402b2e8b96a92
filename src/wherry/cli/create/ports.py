"""``-p`` and ``--expose``: ``[[address:]host[-end]:]container[-end][/protocol]``.

``from=SUBNET,`` before that (several times, or with ``+`` between them) names the subnets that may connect.
"""

from __future__ import annotations

from wherry.cli.create.kinds import is_ip
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Bindings = dict[str, list[dict[str, Any]]]

PROTOCOLS = ("tcp", "udp", "sctp")


def parse(specs: Iterable[str]) -> Bindings:
    """Port bindings by ``port/protocol``, in the form of the API's ``PortBindings``.

    :raises InvalidArgument: in Docker's words.
    """
    bindings: Bindings = {}
    for spec in specs:
        sources, rest = _sources(spec)
        for port, binding in _one(_standard(rest)):
            wanted: dict[str, Any] = {**binding, "Sources": sources} if sources else binding
            bindings.setdefault(port, []).append(wanted)
    return bindings


def _sources(spec: str) -> tuple[list[str], str]:
    """The subnets that may connect, and the spec without them.

    :raises InvalidArgument: not a subnet.
    """
    from ipaddress import ip_network

    kept, sources = [], []
    for part in spec.split(","):
        name, equals, value = part.partition("=")
        if not equals or name != "from":
            kept.append(part)
            continue
        for text in value.split("+"):
            try:
                sources.append(str(ip_network(text)))
            except ValueError as e:
                raise InvalidArgument(f"invalid subnet in '{part}': {e}") from e
    return sources, ",".join(kept)


def _standard(spec: str) -> str:
    """Convert ``published=8080,target=80,protocol=udp`` to the short form."""
    if "=" not in spec:
        return spec
    known = {"protocol": "tcp", "published": "", "target": "", "mode": "", "app_protocol": "", "name": ""}
    for field in spec.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key or key not in known:
            raise InvalidArgument(f"invalid publish opts format (should be name=value but got '{field}')")
        known[key] = value
    if not known["target"]:
        raise InvalidArgument(f"missing mandatory field 'target' in '{spec}'")
    return f"{known['published']}:{known['target']}/{known['protocol']}"


def _one(spec: str) -> Iterable[tuple[str, dict[str, str]]]:
    head, _, container = spec.rpartition(":")
    address, _, host = head.rpartition(":")
    container, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address and not is_ip(address):
        raise InvalidArgument(f"invalid IP address: {address}")
    if not container:
        raise InvalidArgument(f"no port specified: {spec}<empty>")
    first, last = _range(container, "invalid containerPort: ")
    host_first, host_last = _range(host, "invalid hostPort: ") if host else (0, 0)
    count = last - first + 1
    if host and count != host_last - host_first + 1 and count != 1:
        raise InvalidArgument(
            f"invalid ranges specified for container and host Ports: {container} and {host}"
        )
    for offset in range(count):
        shown = str(host_first + offset) if host else ""
        if host and count == 1 and host_first != host_last:
            shown += f"-{host_last}"
        yield f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": shown}


def _range(text: str, complaint: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = (first, last if dash else first)
    if not all(e.isdecimal() and e.isascii() and len(e) < 6 and int(e) < 65536 for e in ends):
        raise InvalidArgument(complaint + text)
    if int(ends[0]) > int(ends[1]):
        raise InvalidArgument(complaint + text)
    return int(ends[0]), int(ends[1])


def exposed(specs: Iterable[str]) -> list[str]:
    """Ports named by ``--expose``, as ``port/protocol``.

    :raises InvalidArgument: in Docker's words.
    """
    ports: list[str] = []
    for spec in specs:
        if ":" in spec:
            raise InvalidArgument(f"invalid port format for --expose: {spec}")
        numbers, _, protocol = spec.partition("/")
        try:
            first, last = _range(numbers, "")
        except InvalidArgument:
            reason = f'strconv.ParseUint: parsing "{numbers}": invalid syntax'
            if numbers.replace("-", "").isdecimal():
                reason = f"invalid range specified for port: {numbers}"
            raise InvalidArgument(f"invalid range format for --expose: {spec}, error: {reason}") from None
        ports += [f"{port}/{protocol or 'tcp'}" for port in range(first, last + 1)]
    return ports
