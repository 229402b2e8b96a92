"""``wherry events``."""

from __future__ import annotations

import sys
import time

from wherry.cli.command import Command, safe
from wherry.cli.flags import Flag
from wherry.cli.render import table
from wherry.cli.shared import FILTERS, FORMAT_LONG
from wherry.cli.times import timestamp
from wherry.cli.values import STRING
from wherry.client import system
from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format")
    compiled = table.compile_format("{{json .}}" if layout == "json" else layout) if layout else None
    since, until = timestamp(options.text("since")), timestamp(options.text("until"))
    try:
        for event in system.events(ctx.api, since=since, until=until, given=options.filters()):
            ctx.say(table.render(compiled, event) if compiled else safe(line(event)))
            sys.stdout.flush()
    except ValueError as e:
        raise Internal(f"cannot read the daemon's events: {e}") from e
    return 0


def line(event: dict[str, Any]) -> str:
    """``2026-01-02T15:04:05.000000000+01:00 container start 1f2e… (image=busybox, name=web)``"""
    actor = event.get("Actor") or {}
    text = f"{_moment(event)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes: dict[str, Any] = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join(f"{k}={attributes[k]}" for k in sorted(attributes)) + ")"
    return text


def _moment(event: dict[str, Any]) -> str:
    nanoseconds = int(event.get("timeNano") or int(event.get("time") or 0) * 10**9)
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
)
