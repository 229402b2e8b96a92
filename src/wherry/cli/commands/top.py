"""``wherry top``: the processes of one container as Docker shows them, or a live table of containers."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.console import can_draw, one_line
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.cli.render import units
from wherry.cli.render.table import align
from wherry.client import containers
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.cli.render.usage import ContainerUsage

    SortKey = Callable[[ContainerUsage], float | str]

COLUMN_MIN = 20
ORDERS: dict[str, tuple[SortKey, bool]] = {
    "cpu": (lambda usage: usage.cpu, True),
    "memory": (lambda usage: usage.memory, True),
    "net": (lambda usage: usage.received + usage.sent, True),
    "block": (lambda usage: usage.block_read + usage.block_write, True),
    "pids": (lambda usage: float(usage.pids), True),
    "name": (lambda usage: usage.name, False),
}
"""The columns to sort by, and whether the highest values come first."""
KEYS = {"c": "cpu", "m": "memory", "i": "net", "b": "block", "p": "pids", "n": "name"}


def run(ctx: Context, options: Options, args: list[str]) -> int:
    order = options.text("sort")
    if order not in ORDERS:
        raise InvalidArgument(f"cannot sort by {order!r}: {', '.join(ORDERS)}")
    if not args or options.on("all") or _all_containers(ctx, args):
        return _containers(ctx, [] if options.on("all") else args, order, once=options.on("no-stream"))
    answer = containers.top(ctx.api, args[0], " ".join(args[1:]))
    rows = [answer.get("Titles") or [], *(answer.get("Processes") or [])]
    lines = ("\t".join(one_line(str(cell)) for cell in row) for row in rows)
    ctx.write(align(lines, COLUMN_MIN))
    return 0


def _all_containers(ctx: Context, args: list[str]) -> bool:
    """Whether several containers are named: the words after the first may also be options of ps."""
    if len(args) == 1 or any(word.startswith("-") for word in args):
        return False
    try:
        for name in args[1:]:
            containers.inspect(ctx.api, name)
    except NotFound:
        return False
    return True


def _containers(ctx: Context, wanted: list[str], order: str, *, once: bool) -> int:
    from wherry.cli.commands.stats import readings
    from wherry.cli.render import table
    from wherry.cli.render.usage import UsageLine

    view = TopView(order)
    if not once and can_draw(1):
        from wherry.cli.terminal import live

        live.run(readings(ctx, wanted, everything=False, stream=True), view.lines, view.key)
        return 0
    for usages in readings(ctx, wanted, everything=False, stream=False):
        rows = [UsageLine(usage) for usage in view.sorted(usages)]
        table.show(ctx, rows, "table", default=UsageLine.TABLE, headers=UsageLine.HEADERS)
    return 0


class TopView:
    """The live table: a line of sums, then the containers; keys choose the order."""

    def __init__(self, order: str) -> None:
        from wherry.cli.commands.stats import Histories

        self.order, self.turned = order, False
        self._histories = Histories()

    def key(self, key: str) -> bool:
        """Handle a key. :returns: False if it ends the view."""
        if key.lower() in KEYS:
            self.order, self.turned = KEYS[key.lower()], False
        if key.lower() == "r":
            self.turned = not self.turned
        return key.lower() != "q"

    def sorted(self, usages: list[ContainerUsage]) -> list[ContainerUsage]:
        by, descending = ORDERS[self.order]
        return sorted(sorted(usages, key=lambda u: u.name), key=by, reverse=descending != self.turned)

    def lines(self, usages: list[ContainerUsage]) -> list[str]:
        cpu, memory = sum(u.cpu for u in usages), sum(u.memory for u in usages)
        pids = sum(u.pids for u in usages)
        keys = " ".join(f"{key}:{name}" for key, name in KEYS.items())
        self._histories.take(usages)
        return [
            f"{len(usages)} containers, {pids} processes, CPU {cpu:.1f}%, memory {units.binary_size(memory)}",
            f"sorted by {self.order}   {keys} r:reverse q:quit",
            "",
            *self._histories.lines(self.sorted(usages)),
        ]


TOP = Command(
    "[OPTIONS] [CONTAINER [ps OPTIONS] | CONTAINER...]",
    run,
    (
        Flag("all", "a", BOOL, "Show all running containers, as without arguments"),
        Flag("no-stream", "", BOOL, "Show containers once"),
        Flag(
            "sort",
            "",
            STRING,
            "Order of containers (cpu|memory|net|block|pids|name)",
            default="cpu",
            shown='"cpu"',
            complete=" ".join(ORDERS),
        ),
    ),
    most=UNLIMITED,
    interspersed=False,
    complete="running running",
    description="Show the processes of a container; without one, or with several, what containers use, live.",
)
