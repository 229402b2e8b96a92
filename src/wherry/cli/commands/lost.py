"""``wherry system lost ls|restore|rm``: data that the daemon set aside because it had no row."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, each
from wherry.cli.grammar.common import FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import table
from wherry.cli.render.lostrow import LostLine
from wherry.client import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or "table"
    if options.on("quiet"):
        layout = table.quiet(options.text("format"), "ID", "id")
    rows = [LostLine(one) for one in system.lost(ctx.api)]
    table.show(ctx, rows, layout, default=LostLine.TABLE, headers=LostLine.HEADERS)
    return 0


def restore(ctx: Context, options: Options, args: list[str]) -> int:
    ctx.say(system.restore_lost(ctx.api, args[0], args[1] if len(args) > 1 else ""))
    return 0


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    def one(identifier: str) -> str:
        system.remove_lost(ctx.api, identifier)
        return identifier

    return each(ctx, args, one)


LS = Command(
    "[OPTIONS]",
    listing,
    (FORMAT_TABLE, Flag("quiet", "q", BOOL, "Only display IDs")),
    description="List what the daemon found below its root that no row knew, and set aside",
)
RESTORE = Command(
    "ID [VOLUME]",
    restore,
    least=1,
    most=2,
    description="Make a volume of what was set aside",
)
RM = Command("ID [ID...]", remove, least=1, most=UNLIMITED, description="Delete what was set aside for good")
