"""``wherry diff`` and ``wherry export``: a container's changed files, and all its files."""

from __future__ import annotations

import os

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import STRING
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

_KINDS = {0: "C", 1: "A", 2: "D"}


def diff(ctx: Context, options: Options, args: list[str]) -> int:
    for change in containers.changes(ctx.api, args[0]):
        ctx.line(f"{_KINDS.get(int(change.get('Kind', 0)), '?')} {change.get('Path')}")
    return 0


def export(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.imagearchive import give, output

    path = output(options)
    directory = os.path.dirname(path) or "."
    if path and (os.path.isdir(path) or not os.path.isdir(directory)):
        what = (
            f'"{path}" is a directory' if os.path.isdir(path) else f'directory "{directory}" does not exist'
        )
        raise Failure(f"failed to export container: invalid output path: {what}")
    give(path, containers.export(ctx.api, args[0]), "Exporting")
    return 0


DIFF = Command("CONTAINER", diff, least=1, most=1, complete="container none")
EXPORT = Command(
    "[OPTIONS] CONTAINER",
    export,
    (Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"),),
    least=1,
    most=1,
    complete="container none",
)
