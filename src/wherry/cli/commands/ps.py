"""``wherry ps``."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.daemons.several import ask
from wherry.cli.grammar.common import FILTERS, FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT
from wherry.cli.render import table
from wherry.cli.render.rows import ContainerLine
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("psFormat") or "table"
    quiet, size = options.on("quiet"), options.on("size")
    if quiet:
        if said := options.text("format"):
            ctx.complain("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        layout, size = table.quiet("raw" if said == "raw" else "", "ID", "container_id"), False
    limit = options.number("last")
    if options.on("latest") and limit == -1:
        limit = 1
    if ".Size" in layout or layout == "json" or "json ." in layout:
        size = True
    _check(layout)
    given = options.filters()
    answers = ask(
        ctx,
        lambda one: containers.listing(one.api, all=options.on("all"), limit=limit, size=size, given=given),
    )
    truncate = not options.on("no-trunc")
    table.show(
        ctx,
        [ContainerLine(c, truncate=truncate).of(answer) for answer in answers for c in answer.value],
        layout,
        default=ContainerLine.TABLE_SIZE if size else ContainerLine.TABLE,
        headers=ContainerLine.HEADERS,
    )
    return answers.finish(ctx)


def _check(layout: str) -> None:
    """Check a template with an empty container before the daemon is asked, as Docker's client does."""
    if layout not in ("table", "json"):
        text = layout.replace("\\t", "\t").replace("\\n", "\n")
        table.render(table.compile_format(text), ContainerLine({}))


LS = Command(
    "[OPTIONS]",
    run,
    (
        Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
        FILTERS,
        FORMAT_TABLE,
        Flag(
            "last", "n", INT, "Show n last created containers (includes all states)", default=-1, shown="-1"
        ),
        Flag("latest", "l", BOOL, "Show the latest created container (includes all states)"),
        NO_TRUNC,
        Flag("quiet", "q", BOOL, "Only display container IDs"),
        Flag("size", "s", BOOL, "Display total file sizes"),
    ),
    several=True,
)
