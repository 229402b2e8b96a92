"""``wherry system fsck``."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.client import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def fsck(ctx: Context, options: Options, args: list[str]) -> int:
    """The exit code is 1 if errors remain."""
    repair, failed = options.on("repair"), 0
    for message in system.fsck(ctx.api, repair=repair):
        if finding := message.get("Finding"):
            mended = f": {finding['repair']}" if finding.get("repair") else ""
            ctx.line(f"{finding['kind']} {finding['name']}: {finding['problem']}{mended}")
        elif "Found" in message:
            failed = int(message["Failed"])
            if not message["Found"]:
                ctx.say("Everything is as it should be")
            elif failed and not repair:
                ctx.say("Run wherry system fsck --repair to have it mended")
    return 1 if failed else 0


FSCK = Command(
    "[OPTIONS]",
    fsck,
    (Flag("repair", "", BOOL, "Drop what is wrong, and fetch it or unpack it again"),),
    description="Hash all content again and hold rows, files and snapshots against each other",
)
