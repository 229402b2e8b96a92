"""``wherry network ls``."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.commands.volume import natural
from wherry.cli.flags import Flag
from wherry.cli.render import table
from wherry.cli.render.rows import NetworkRow
from wherry.cli.shared import FILTERS, FORMAT_TABLE
from wherry.cli.values import BOOL
from wherry.client import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.flags import Options


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("networksFormat") or "table"
    if options.on("quiet") and not options.text("format"):
        layout = "{{.ID}}"
    found = networks.listing(ctx.api, options.filters())
    truncate = not options.on("no-trunc")
    ordered = sorted(found, key=lambda network: natural(str(network.get("Name", ""))))
    rows = [NetworkRow(network, truncate=truncate) for network in ordered]
    table.show(ctx, rows, layout, default=NetworkRow.TABLE, headers=NetworkRow.HEADERS)
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
