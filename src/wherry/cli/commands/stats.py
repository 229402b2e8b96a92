"""``wherry stats``, and ``wherry top`` over containers: what they use, as it changes."""

from __future__ import annotations

import sys

from wherry.cli.command import UNLIMITED, Command, safe
from wherry.cli.flags import Flag
from wherry.cli.render import table
from wherry.cli.render.usage import Usage, UsageRow, sparkline
from wherry.cli.several import ask
from wherry.cli.shared import FORMAT_TABLE, NO_TRUNC, on_terminal
from wherry.cli.values import BOOL
from wherry.client import containers
from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.flags import Options

HISTORY = 12
"""Readings that a sparkline shows."""
_CPU_LEAST, _MEMORY_LEAST = 5.0, 1.0
"""What a sparkline's full bar stands for at least: percent of a processor, bytes."""


def readings(ctx: Context, wanted: list[str], *, everything: bool, stream: bool) -> Iterator[list[Usage]]:
    """A list of usages a second, of the containers wanted (all that run without any), by name.

    :raises NotFound: one of them is not there.
    """
    context = ctx.context_name
    ids = [str(containers.inspect(ctx.api, name)["Id"]) for name in wanted]
    found = containers.all_stats(ctx.api, stopped=everything or bool(ids), stream=stream)
    try:
        for answer in found:
            usages = [Usage(reading, context) for reading in answer]
            if ids:
                usages = [usage for usage in usages if usage.id in ids]
            yield sorted(usages, key=lambda usage: usage.name)
    except ValueError as e:
        raise Internal(f"cannot read the daemon's statistics: {e}") from e


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or ctx.setting("statsFormat") or "table"
    stream, truncate = not options.on("no-stream"), not options.on("no-trunc")

    def work(one: Context) -> Iterator[list[Usage]]:
        return readings(one, args, everything=options.on("all"), stream=stream)

    if not stream:
        answers = ask(ctx, lambda one: [usage for usages in work(one) for usage in usages])
        _show(ctx, [usage for answer in answers for usage in answer.value], layout, truncate=truncate)
        return answers.finish(ctx)
    problems: list[str] = []
    if layout == "table" and on_terminal(1):
        from wherry.cli import live

        histories = Histories()

        def draw(usages: list[Usage]) -> list[str]:
            histories.take(usages)
            lines = histories.lines(usages, truncate=truncate, several=bool(ctx.several))
            return lines + [safe(problem) for problem in problems]

        live.run(_rounds(ctx, work, problems.append), draw, lambda key: key not in "qQ")
        for problem in problems:
            ctx.complain(safe(problem))
        return 1 if problems else 0

    def complain(problem: str) -> None:
        problems.append(problem)
        ctx.complain(safe(problem))

    for usages in _rounds(ctx, work, complain):
        _show(ctx, usages, layout, truncate=truncate)
        sys.stdout.flush()
    return 1 if problems else 0


def _rounds(
    ctx: Context, work: Callable[[Context], Iterator[list[Usage]]], on_problem: Callable[[str], None]
) -> Iterator[list[Usage]]:
    """Everybody's last readings, ordered by context: when every daemon has sent new ones, or one of them has
    for the second time, so that none holds up the others."""
    if not ctx.several:
        yield from work(ctx)
        return
    from wherry.cli.several import Daemons

    daemons = Daemons(ctx)
    last: dict[str, list[Usage]] = {}
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


def _together(ctx: Context, last: dict[str, list[Usage]], left: set[str]) -> list[Usage]:
    return [usage for name in ctx.several if name in left for usage in last.get(name, [])]


def _show(ctx: Context, usages: list[Usage], layout: str, *, truncate: bool) -> None:
    rows = [UsageRow(usage, truncate=truncate, several=bool(ctx.several)) for usage in usages]
    table.show(ctx, rows, layout, default=UsageRow.TABLE, headers=UsageRow.HEADERS)


class Histories:
    """The last readings of every container, drawn beside its numbers."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[str, str], list[float]] = {}
        self._memory: dict[tuple[str, str], list[float]] = {}
        self._last: object = None

    def lines(self, usages: list[Usage], *, truncate: bool = True, several: bool = False) -> list[str]:
        """The table, with contexts when there are several. :meth:`take` has seen every one of ``usages``."""
        compiled = table.compile_format(("{{.Context}}\t" if several else "") + UsageRow.TABLE)
        header = "\t".join(
            [
                compiled.render(table.Header(UsageRow.HEADERS | {"Context": "CONTEXT"}), header=True),
                "CPU",
                "MEMORY",
            ]
        )
        rows = [self._row(compiled, usage, truncate=truncate) for usage in usages]
        return table.align([header, *rows]).splitlines()

    def _row(self, compiled: Any, usage: Usage, *, truncate: bool) -> str:
        cells = safe(table.render(compiled, UsageRow(usage, truncate=truncate)))
        cpu = sparkline(self._cpu[usage.key], HISTORY, _CPU_LEAST)
        memory = sparkline(self._memory[usage.key], HISTORY, _MEMORY_LEAST)
        return f"{cells}\t{cpu}\t{memory}"

    def take(self, usages: Sequence[Usage]) -> None:
        """Note a second's readings, once; containers that are not among them are forgotten."""
        if usages is self._last:
            return  # Drawn again for a key.
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
