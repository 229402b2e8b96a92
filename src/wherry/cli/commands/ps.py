"""``wherry ps``."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.flags import Flag
from wherry.cli.render import table
from wherry.cli.render.rows import ContainerRow
from wherry.cli.several import ask
from wherry.cli.shared import FILTERS, FORMAT_TABLE, NO_TRUNC
from wherry.cli.values import BOOL, INT
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("psFormat") or "table"
    quiet, size = options.on("quiet"), options.on("size")
    if quiet and not options.text("format"):
        layout, size = "{{.ID}}", False
    limit = options.number("last")
    if options.on("latest") and limit == -1:
        limit = 1
    if ".Size" in layout:
        size = True
    _check(layout)
    given = options.filters()
    answers = ask(
        ctx,
        lambda one: containers.listing(one.api, all=options.on("all"), limit=limit, size=size, given=given),
    )
    truncate = not options.on("no-trunc")
    if quiet and options.text("format") and layout in ("table", "json"):
        layout = "table {{.ID}}" if layout == "table" else layout
    table.show(
        ctx,
        [ContainerRow(c, truncate=truncate).of(answer) for answer in answers for c in answer.value],
        layout,
        default=ContainerRow.TABLE_SIZE if size else ContainerRow.TABLE,
        headers=ContainerRow.HEADERS,
    )
    return answers.finish(ctx)


def _check(layout: str) -> None:
    """Refuse a bad template before the daemon is asked, on an empty container, as Docker's client does."""
    if layout not in ("table", "json"):
        text = layout.replace("\\t", "\t").replace("\\n", "\n")
        table.render(table.compile_format(text), ContainerRow({}))


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
