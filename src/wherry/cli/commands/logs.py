"""``wherry logs``."""

from __future__ import annotations

import sys

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.times import timestamp
from wherry.cli.grammar.values import BOOL, STRING
from wherry.client import containers, streams
from wherry.client.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    asked: dict[str, Any] = {
        "follow": options.on("follow"),
        "since": timestamp(options.text("since"), 'invalid value for "since"'),
        "until": timestamp(options.text("until"), 'invalid value for "until"'),
        "tail": options.text("tail"),
        "timestamps": options.on("timestamps"),
        "details": options.on("details"),
    }
    if len(args) > 1 or ctx.several:
        from wherry.cli.terminal.manylogs import show

        return show(ctx, args, **asked)
    container = containers.inspect(ctx.api, args[0])
    response = containers.logs(ctx.api, container["Id"], **asked)
    sys.stdout.flush()
    tty = bool((container.get("Config") or {}).get("Tty"))
    streams.copy(response, _sink(tty))
    return 0


def _sink(tty: bool) -> streams.Raw | streams.Demultiplexer:
    if tty:
        return streams.Raw(lambda piece: write_all(1, piece))
    return streams.Demultiplexer(lambda piece: write_all(1, piece), lambda piece: write_all(2, piece))


_WHEN = '(e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'
LOGS = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    run,
    (
        Flag("details", "", BOOL, "Show extra details provided to logs"),
        Flag("follow", "f", BOOL, "Follow log output"),
        Flag("since", "", STRING, f"Show logs since timestamp {_WHEN}"),
        Flag(
            "tail",
            "n",
            STRING,
            "Number of lines to show from the end of the logs",
            default="all",
            shown='"all"',
        ),
        Flag("timestamps", "t", BOOL, "Show timestamps"),
        Flag("until", "", STRING, f"Show logs before a timestamp {_WHEN}"),
    ),
    least=1,
    most=UNLIMITED,
    several=True,
    complete="container",
)
