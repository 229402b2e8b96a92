"""``--network`` in both forms, and the flags that describe the endpoint if one network is given.

The short form is a name (``bridge``, ``host``, ``none``, ``container:web`` or a network's name); the long one
is ``name=backend,alias=db,ip=10.0.0.5``.
"""

from __future__ import annotations

from wherry.cli.create.kinds import is_ip
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.grammar.flags import Options

    Endpoint = dict[str, Any]

SPECIAL = ("default", "bridge", "host", "none")


def parse_network(text: str) -> Endpoint:
    """One ``--network``; the network's name is under ``Target``.

    :raises ValueError: in Docker's words.
    """
    if "=" not in text:
        return {"Target": text}
    from csv import reader

    endpoint: Endpoint = {"Target": ""}
    for field in next(reader([text]), []):
        key, equals, value = field.lower().strip().partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        _field(endpoint, key.strip(), value.strip(), field)
    if not endpoint["Target"]:
        raise ValueError("network name/id is not specified")
    return endpoint


def _field(endpoint: Endpoint, key: str, value: str, field: str) -> None:
    addresses = endpoint.setdefault("IPAMConfig", {}) if key in ("ip", "ip6", "link-local-ip") else {}
    if key == "name":
        endpoint["Target"] = value
    elif key == "alias":
        endpoint.setdefault("Aliases", []).append(value)
    elif key == "ip":
        addresses["IPv4Address"] = value
    elif key == "ip6":
        addresses["IPv6Address"] = value
    elif key == "mac-address":
        endpoint["MacAddress"] = value
    elif key == "link-local-ip":
        addresses.setdefault("LinkLocalIPs", []).append(value)
    elif key == "driver-opt":
        name, equals, setting = field.partition("=")[2].partition("=")
        if not equals:
            raise ValueError("invalid key value pair format in driver options")
        endpoint.setdefault("DriverOpts", {})[name.strip().lower()] = setting
    elif key == "gw-priority":
        if not value.removeprefix("-").isdecimal():
            raise ValueError(f"invalid gw-priority: {value}")
        endpoint["GwPriority"] = int(value)
    else:
        raise ValueError(f"invalid field key {key}")


def endpoints(options: Options) -> tuple[str, dict[str, Endpoint]]:
    """The network mode, and the endpoint settings by network name.

    :raises InvalidArgument: options that contradict each other, in Docker's words.
    """
    wanted: list[Endpoint] = [dict(one) for one in options.get("network")] or [{"Target": "default"}]
    _apply_flags(wanted[0], options)
    found: dict[str, Endpoint] = {}
    for endpoint in wanted:
        name = str(endpoint.pop("Target"))
        if not name:
            raise InvalidArgument("no name set for network")
        if name in found:
            raise InvalidArgument(f'network "{name}" is specified multiple times')
        if len(wanted) > 1 and (name in ("host", "none") or name.startswith("container:")):
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        found[name] = endpoint
    mode = next(iter(found))
    special = mode in SPECIAL or mode.startswith("container:")
    if special and found[mode].get("Aliases"):
        raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    return mode, found


def _apply_flags(first: Endpoint, options: Options) -> None:
    """Add ``--ip``, ``--network-alias`` and similar flags to the first network."""
    addresses: dict[str, Any] = {}
    for flag, member, version in (("ip", "IPv4Address", 4), ("ip6", "IPv6Address", 6)):
        text = options.text(flag)
        if text:
            if not is_ip(text, version):
                raise InvalidArgument(f"invalid {'IPv4' if version == 4 else 'IPv6'} address: {text}")
            addresses[member] = text
    if options.many("link-local-ip"):
        addresses["LinkLocalIPs"] = options.many("link-local-ip")
    given: Endpoint = {"IPAMConfig": addresses} if addresses else {}
    if options.many("network-alias"):
        given["Aliases"] = options.many("network-alias")
    if options.many("link"):
        given["Links"] = options.many("link")
    if options.text("mac-address"):
        given["MacAddress"] = _mac(options.text("mac-address"))
    for member, flag in (
        ("Aliases", "--network-alias"),
        ("Links", "--link"),
        ("IPAMConfig", "--ip, --ip6 or --link-local-ip"),
        ("MacAddress", "--mac-address"),
    ):
        if member in given and member in first:
            raise InvalidArgument(f"conflicting options: cannot specify both {flag} and per-network options")
    first.update(given)


def _mac(text: str) -> str:
    parts = text.replace("-", ":").split(":")
    good = len(parts) in (6, 8, 20) and all(
        len(p) == 2 and all(c in "0123456789abcdefABCDEF" for c in p) for p in parts
    )
    if not good:
        raise InvalidArgument(f"{text} is not a valid mac address")
    return text
