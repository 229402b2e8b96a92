"""``wherry network ls|create|rm|connect|disconnect``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, each
from wherry.cli.console import confirm
from wherry.cli.create.kinds import is_ip
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, LABELS, LIST, MAP, STRING, STRINGS
from wherry.cli.render import table
from wherry.cli.render.order import natural
from wherry.cli.render.rows import NetworkLine
from wherry.client import networks
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("networksFormat") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "network_id")
    found = networks.listing(ctx.api, options.filters())
    truncate = not options.on("no-trunc")
    ordered = sorted(found, key=lambda network: natural(str(network.get("Name", ""))))
    rows = [NetworkLine(network, truncate=truncate) for network in ordered]
    table.show(ctx, rows, layout, default=NetworkLine.TABLE, headers=NetworkLine.HEADERS)
    return 0


def create(ctx: Context, options: Options, args: list[str]) -> int:
    body: Object = {
        "Name": args[0],
        "Driver": options.text("driver"),
        "Options": options.pairs("opt"),
        "Labels": options.pairs("label"),
        "IPAM": {
            "Driver": options.text("ipam-driver"),
            "Options": options.pairs("ipam-opt"),
            "Config": ipam(options),
        },
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "Ingress": options.on("ingress"),
        "Scope": options.text("scope"),
        "ConfigOnly": options.on("config-only"),
    }
    if options.on("config-only") and not options.given("driver"):
        body["Driver"] = ""
    for flag, member in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.given(flag):
            body[member] = options.on(flag)
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    answer = networks.create(ctx.api, body)
    for line in str(answer.get("Warning") or "").splitlines():
        ctx.complain(f"WARNING: {line}")
    ctx.say(str(answer["Id"]))
    return 0


def ipam(options: Options) -> list[Object]:
    """``--subnet`` with the other flags for each: a range, a gateway, reserved addresses.

    :raises InvalidArgument: a value is in none of the subnets, or a subnet has two; in Docker's words.
    """
    from ipaddress import ip_address, ip_network

    def network(text: str) -> Any:
        try:
            return ip_network(text, strict=False)
        except ValueError:
            raise InvalidArgument(f"invalid CIDR address: {text}") from None

    subnets = [(text, network(text)) for text in options.many("subnet")]
    for position, (text, one) in enumerate(subnets):
        for _, other in subnets[:position]:
            if one.version == other.version and one.overlaps(other):
                raise InvalidArgument(f"multiple overlapping subnet configuration is not supported: {text}")
    found: dict[str, Object] = {text: {"Subnet": text} for text, _ in subnets}

    def home(what: str, kind: str, first: Any) -> Object:
        for text, one in subnets:
            if one.version == first.version and first in one:
                return found[text]
        raise InvalidArgument(f"no matching subnet for {kind} {what}")

    for what in options.many("ip-range"):
        place = home(what, "range", network(what).network_address)
        if "IPRange" in place:
            raise InvalidArgument(
                f"cannot configure multiple ranges ({what}, {place['IPRange']}) on the same subnet"
            )
        place["IPRange"] = what
    for what in options.many("gateway"):
        if not is_ip(what):
            raise InvalidArgument(f"invalid gateway: {what}")
        place = home(what, "gateway", ip_address(what))
        if "Gateway" in place:
            raise InvalidArgument(
                f"cannot configure multiple gateways ({what}, {place['Gateway']}) for the same subnet"
            )
        place["Gateway"] = what
    for name, what in options.pairs("aux-address").items():
        if not is_ip(what):
            raise InvalidArgument(f"invalid aux-address: {what}")
        home(what, "aux-address", ip_address(what)).setdefault("AuxiliaryAddresses", {})[name] = what
    return list(found.values())


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    force = options.on("force")

    def one(name: str) -> str | None:
        try:
            network = networks.inspect(ctx.api, name)
            if network.get("Ingress") and not confirm(
                "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm "
                "run the same docker engine version. Are you sure you want to continue?",
            ):
                return None
            networks.remove(ctx.api, name)
        except NotFound:
            if force:
                return None
            raise
        return name

    return each(ctx, args, one)


def connect(ctx: Context, options: Options, args: list[str]) -> int:
    network, container = args
    addresses: Object = {}
    for flag, member, version in (("ip", "IPv4Address", 4), ("ip6", "IPv6Address", 6)):
        text = options.text(flag)
        if text and not is_ip(text, version):
            raise InvalidArgument(f"invalid IPv{version} address: {text}")
        if text:
            addresses[member] = text
    if options.many("link-local-ip"):
        addresses["LinkLocalIPs"] = options.many("link-local-ip")
    endpoint: Object = {
        "IPAMConfig": addresses or None,
        "Links": options.many("link") or None,
        "Aliases": options.many("alias") or None,
        "DriverOpts": options.pairs("driver-opt") or None,
        "GwPriority": options.number("gw-priority"),
    }
    networks.connect(ctx.api, network, container, endpoint)
    return 0


def disconnect(ctx: Context, options: Options, args: list[str]) -> int:
    network, container = args
    networks.disconnect(ctx.api, network, container, force=options.on("force"))
    return 0


LS = Command(
    "[OPTIONS]",
    listing,
    (
        FILTERS,
        FORMAT_TABLE,
        Flag("no-trunc", "", BOOL, "Do not truncate the output"),
        Flag("quiet", "q", BOOL, "Only display network IDs"),
    ),
)
CREATE = Command(
    "[OPTIONS] NETWORK",
    create,
    (
        Flag("attachable", "", BOOL, "Enable manual container attachment"),
        Flag(
            "aux-address", "", MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver", shown="map[]"
        ),
        Flag(
            "config-from", "", STRING, "The network from which to copy the configuration", complete="network"
        ),
        Flag("config-only", "", BOOL, "Create a configuration only network"),
        Flag(
            "driver",
            "d",
            STRING,
            "Driver to manage the Network",
            default="bridge",
            shown='"bridge"',
            complete="bridge macvlan ipvlan overlay",
        ),
        Flag("gateway", "", STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("ingress", "", BOOL, "Create swarm routing-mesh network"),
        Flag("internal", "", BOOL, "Restrict external access to the network"),
        Flag("ip-range", "", STRINGS, "Allocate container ip from a sub-range"),
        Flag("ipam-driver", "", STRING, "IP Address Management Driver", default="default", shown='"default"'),
        Flag("ipam-opt", "", MAP, "Set IPAM driver specific options", shown="map[]"),
        Flag("ipv4", "", BOOL, "Enable or disable IPv4 address assignment", default=True),
        Flag("ipv6", "", BOOL, "Enable or disable IPv6 address assignment"),
        Flag("label", "", LABELS, "Set metadata on a network"),
        Flag("opt", "o", MAP, "Set driver specific options", shown="map[]"),
        Flag("scope", "", STRING, "Control the network's scope"),
        Flag("subnet", "", STRINGS, "Subnet in CIDR format that represents a network segment"),
    ),
    least=1,
    most=1,
)
RM = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    remove,
    (Flag("force", "f", BOOL, "Do not error if the network does not exist"),),
    least=1,
    most=UNLIMITED,
    complete="network",
)
CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    connect,
    (
        Flag("alias", "", STRINGS, "Add network-scoped alias for the container"),
        Flag("driver-opt", "", MAP, "driver options for the network", shown="map[]"),
        Flag("gw-priority", "", INT, "Highest gw-priority provides the default gateway"),
        Flag("ip", "", STRING, 'IPv4 address (e.g., "172.30.100.104")'),
        Flag("ip6", "", STRING, 'IPv6 address (e.g., "2001:db8::33")'),
        Flag("link", "", LIST, "Add link to another container", complete="container"),
        Flag("link-local-ip", "", STRINGS, "Add a link-local address for the container"),
    ),
    least=2,
    most=2,
    complete="network",
)
DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    disconnect,
    (Flag("force", "f", BOOL, "Force the container to disconnect from a network"),),
    least=2,
    most=2,
    complete="network",
)
