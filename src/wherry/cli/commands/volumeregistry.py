"""``wherry volume push|pull``: push volumes to registries and pull them."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.cli.terminal.progress import show
from wherry.client import credentials, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

_QUIET = Flag("quiet", "q", BOOL, "Suppress verbose output")


def push(ctx: Context, options: Options, args: list[str]) -> int:
    headers = credentials.header_for(ctx.config_dir, args[1])
    stream = volumes.push(ctx.api, args[0], args[1], snapshot=options.text("snapshot"), headers=headers)
    show(stream, quiet=options.on("quiet"))
    return 0


def pull(ctx: Context, options: Options, args: list[str]) -> int:
    headers = credentials.header_for(ctx.config_dir, args[0])
    name = args[1] if len(args) > 1 else ""
    stream = volumes.pull(ctx.api, args[0], name, headers=headers)
    for value in show(stream, quiet=options.on("quiet")):
        if isinstance(value, dict) and value.get("Name"):
            ctx.line(str(value["Name"]))
    return 0


PUSH = Command(
    "[OPTIONS] VOLUME NAME[:TAG]",
    push,
    (_QUIET, Flag("snapshot", "", STRING, "Send what was in this snapshot")),
    least=2,
    most=2,
    complete="volume none",
    description="Send a volume to a registry, as an OCI artifact.",
)
PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST] [VOLUME]",
    pull,
    (_QUIET,),
    least=1,
    most=2,
    complete="none none",
    description="Make a volume of one that was pushed; without a name, of the name it had.",
)
