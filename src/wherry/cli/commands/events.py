"""``wherry events``."""

from __future__ import annotations

import sys
import time

from wherry.cli.command import Command
from wherry.cli.console import safe
from wherry.cli.daemons.several import Daemons, ask
from wherry.cli.grammar.common import FILTERS, FORMAT_LONG
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.times import timestamp
from wherry.cli.grammar.values import STRING
from wherry.cli.render import table
from wherry.client import system
from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format")
    compiled = table.compile_format("{{json .}}" if layout == "json" else layout) if layout else None
    since, until = timestamp(options.text("since")), timestamp(options.text("until"))

    def work(one: Context) -> Iterator[dict[str, Any]]:
        try:
            yield from system.events(one.api, since=since, until=until, given=options.filters())
        except ValueError as e:
            raise Internal(f"cannot read the daemon's events: {e}") from e

    def show(event: dict[str, Any], prefix: str = "") -> None:
        if compiled:
            ctx.raw(table.render(compiled, event))
        else:
            ctx.line(prefix + line(event))
        sys.stdout.flush()

    if ctx.several:
        return _of_several(ctx, work, show, ended=bool(until) and float(until) <= time.time())
    named = {"Context": ctx.context_name} if ".Context" in layout else {}
    for event in work(ctx):
        show(event | named)
    return 0


def _of_several(
    ctx: Context,
    work: Callable[[Context], Iterator[dict[str, Any]]],
    show: Callable[[dict[str, Any], str], None],
    *,
    ended: bool,
) -> int:
    """The events of all daemons as they arrive; past events (``ended``) are sorted by time."""
    from wherry.cli.terminal.manylogs import prefixes

    shown = dict(zip(ctx.several, prefixes(ctx.several), strict=True))
    if ended:
        answers = ask(ctx, lambda one: list(work(one)))
        found = [(event, answer.name) for answer in answers for event in answer.value]
        for event, name in sorted(found, key=lambda pair: _nanoseconds(pair[0])):
            show({"Context": name, **event}, shown[name])
        return answers.finish(ctx)
    daemons = Daemons(ctx)
    for name, event in daemons.stream(work, lambda problem: ctx.complain(safe(problem))):
        show({"Context": name, **event}, shown[name])
    return 1 if daemons.problems else 0


def line(event: dict[str, Any]) -> str:
    """``2026-01-02T15:04:05.000000000+01:00 container start 1f2e… (image=busybox, name=web)``"""
    actor = event.get("Actor") or {}
    text = f"{_moment(event)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes: dict[str, Any] = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join(f"{k}={attributes[k]}" for k in sorted(attributes)) + ")"
    return text


def _nanoseconds(event: dict[str, Any]) -> int:
    return int(event.get("timeNano") or int(event.get("time") or 0) * 10**9)


def _moment(event: dict[str, Any]) -> str:
    nanoseconds = _nanoseconds(event)
    local = time.localtime(nanoseconds // 10**9)
    zone = time.strftime("%z", local)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds % 10**9:09d}{shown}"


EVENTS = Command(
    "[OPTIONS]",
    run,
    (
        FILTERS,
        FORMAT_LONG,
        Flag("since", "", STRING, "Show all events created since timestamp"),
        Flag("until", "", STRING, "Stream events until this timestamp"),
    ),
    several=True,
)
