"""``wherry stats``, and ``wherry top`` for containers: their resource usage, live."""

from __future__ import annotations

import sys

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.console import can_draw, indented, safe
from wherry.cli.daemons.several import ask
from wherry.cli.grammar.common import FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import table
from wherry.cli.render.usage import ContainerUsage, UsageLine, sparkline
from wherry.client import containers
from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

HISTORY = 12
"""The number of readings in a sparkline."""
_CPU_LEAST, _MEMORY_LEAST = 5.0, 1.0
"""The minimum value of a sparkline's full bar: percent of a processor, bytes."""


def readings(
    ctx: Context, wanted: list[str], *, everything: bool, stream: bool
) -> Iterator[list[ContainerUsage]]:
    """One list of usages each second, of the wanted containers (default: all running ones), by name.

    :raises NotFound: one of them does not exist.
    """
    context = ctx.context_name
    ids = [str(containers.inspect(ctx.api, name)["Id"]) for name in wanted]
    found = containers.all_stats(ctx.api, stopped=everything or bool(ids), stream=stream)
    try:
        for answer in found:
            usages = [ContainerUsage(reading, context) for reading in answer]
            if ids:
                usages = [usage for usage in usages if usage.id in ids]
            yield sorted(usages, key=lambda usage: usage.name)
    except ValueError as e:
        raise Internal(f"cannot read the daemon's statistics: {e}") from e


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("statsFormat") or "table"
    stream, truncate = not options.on("no-stream"), not options.on("no-trunc")

    def work(one: Context) -> Iterator[list[ContainerUsage]]:
        return readings(one, args, everything=options.on("all"), stream=stream)

    if not stream:
        answers = ask(ctx, lambda one: [usage for usages in work(one) for usage in usages])
        _show(ctx, args, [usage for answer in answers for usage in answer.value], layout, truncate=truncate)
        return answers.finish(ctx)
    problems: list[str] = []
    if layout == "table" and can_draw(1):
        from wherry.cli.terminal import live

        histories = Histories()

        def draw(usages: list[ContainerUsage]) -> list[str]:
            histories.take(usages)
            lines = histories.lines(usages, truncate=truncate, several=bool(ctx.several))
            return lines + [safe(problem) for problem in problems]

        live.run(_rounds(ctx, work, problems.append), draw, lambda key: key not in "qQ")
        for problem in problems:
            ctx.complain(indented(problem))
        return 1 if problems else 0

    def complain(problem: str) -> None:
        problems.append(problem)
        ctx.complain(indented(problem))

    for usages in _rounds(ctx, work, complain):
        _show(ctx, args, usages, layout, truncate=truncate)
        sys.stdout.flush()
    return 1 if problems else 0


def _rounds(
    ctx: Context, work: Callable[[Context], Iterator[list[ContainerUsage]]], on_problem: Callable[[str], None]
) -> Iterator[list[ContainerUsage]]:
    """The last readings of all daemons, ordered by context. They are yielded when every daemon has sent new
    ones, or one has sent its second, so that a slow daemon does not delay the others."""
    if not ctx.several:
        yield from work(ctx)
        return
    from wherry.cli.daemons.several import Daemons

    daemons = Daemons(ctx)
    last: dict[str, list[ContainerUsage]] = {}
    fresh: set[str] = set()
    for name, usages in daemons.stream(work, on_problem):
        if name in fresh:
            yield _together(ctx, last, daemons.left)
            fresh.clear()
        last[name] = usages
        fresh.add(name)
        if fresh >= daemons.left:
            yield _together(ctx, last, daemons.left)
            fresh.clear()


def _together(ctx: Context, last: dict[str, list[ContainerUsage]], left: set[str]) -> list[ContainerUsage]:
    return [usage for name in ctx.several if name in left for usage in last.get(name, [])]


def _show(
    ctx: Context, asked: Sequence[str], usages: list[ContainerUsage], layout: str, *, truncate: bool
) -> None:
    rows = [
        UsageLine(usage, asked=_asked(usage, asked), truncate=truncate, several=bool(ctx.several))
        for usage in usages
    ]
    table.show(ctx, rows, layout, default=UsageLine.TABLE, headers=UsageLine.HEADERS)


def _asked(usage: ContainerUsage, asked: Sequence[str]) -> str:
    """The name by which the user asked for a container."""
    named = (one for one in asked if one.removeprefix("/") == usage.name)
    return next(named, next((one for one in asked if usage.id.startswith(one)), ""))


class Histories:
    """The last readings of every container, drawn as sparklines beside its numbers."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[str, str], list[float]] = {}
        self._memory: dict[tuple[str, str], list[float]] = {}
        self._last: object = None

    def lines(
        self, usages: list[ContainerUsage], *, truncate: bool = True, several: bool = False
    ) -> list[str]:
        """The table, with contexts if there are several. Call :meth:`take` with all ``usages`` before."""
        compiled = table.compile_format(("{{.Context}}\t" if several else "") + UsageLine.TABLE)
        header = "\t".join(
            [
                compiled.render(table.Header(UsageLine.HEADERS | {"Context": "CONTEXT"}), header=True),
                "CPU",
                "MEMORY",
            ]
        )
        rows = [self._row(compiled, usage, truncate=truncate) for usage in usages]
        return table.align([header, *rows]).splitlines()

    def _row(self, compiled: Any, usage: ContainerUsage, *, truncate: bool) -> str:
        cells = safe(table.render(compiled, UsageLine(usage, truncate=truncate)))
        cpu = sparkline(self._cpu[usage.key], HISTORY, _CPU_LEAST)
        memory = sparkline(self._memory[usage.key], HISTORY, _MEMORY_LEAST)
        return f"{cells}\t{cpu}\t{memory}"

    def take(self, usages: Sequence[ContainerUsage]) -> None:
        """Add one second's readings; containers that are not among them are dropped."""
        if usages is self._last:
            return  # Redraw after a key press.
        self._last = usages
        for store, name in ((self._cpu, "cpu"), (self._memory, "memory")):
            kept = {
                usage.key: [*store.get(usage.key, []), getattr(usage, name)][-HISTORY:] for usage in usages
            }
            store.clear()
            store.update(kept)


STATS = Command(
    "[OPTIONS] [CONTAINER...]",
    run,
    (
        Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
        FORMAT_TABLE,
        Flag("no-stream", "", BOOL, "Disable streaming stats and only pull the first result"),
        NO_TRUNC,
    ),
    most=UNLIMITED,
    several=True,
    complete="running",
)
