"""``wherry port``."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.client import containers
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    container = containers.inspect(ctx.api, args[0])
    ports: dict[str, Any] = (container.get("NetworkSettings") or {}).get("Ports") or {}
    if len(args) > 1:
        for line in _one(ports, args[1], args[0]):
            ctx.line(line)
        return 0
    lines = [
        f"{private} -> {_address(binding)}"
        for private in sorted(ports, key=_order)
        for binding in ports[private] or []
    ]
    for line in lines:
        ctx.line(line)
    return 0


def _one(ports: dict[str, Any], wanted: str, container: str) -> list[str]:
    number, _, protocol = wanted.partition("/")
    if not number.isdecimal() or not 0 <= int(number) < 65536:
        raise InvalidArgument(
            f'Error: invalid port ({number}): strconv.ParseUint: parsing "{number}": invalid syntax'
        )
    key = f"{int(number)}/{protocol or 'tcp'}"
    bindings = ports.get(key)
    if not bindings:
        raise NotFound(f"Error: No public port '{wanted}' published for {container}")
    return [_address(binding) for binding in bindings]


def _order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return (int(number) if number.isdecimal() else 0), protocol


def _address(binding: dict[str, Any]) -> str:
    address, port = str(binding.get("HostIp", "")), str(binding.get("HostPort", ""))
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


PORT = Command("CONTAINER [PRIVATE_PORT[/PROTO]]", run, least=1, most=2, complete="container none")
