"""``--help``: made from the table of commands and their flags, with Docker's layout."""

from __future__ import annotations

import os
import sys

from wherry.cli import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wherry.cli.grammar.flags import Flag

SLOP = 5
"""A line may be this many characters too long, to avoid a short last line (pflag's rule)."""


def show(words: Sequence[str], global_flags: Sequence[Flag], *, asked: bool = True) -> int:
    """Print help for a command, a group, or everything; on stderr if it was not asked for."""
    if not words:
        sys.stdout.write(overview(global_flags))
        return 0
    found = commands.find(words)
    if found.entry is not None:
        sys.stdout.write(of_command(found))
        return 0
    if found.used == 0:
        sys.stderr.write(f"unknown help topic: {' '.join(words)}\n")
        return 1
    (sys.stdout if asked else sys.stderr).write(of_group(found.path.removeprefix("wherry ")))
    return 0


def overview(global_flags: Sequence[Flag]) -> str:
    names = dict(commands.top_level())
    others = sorted(name for name in names if name not in commands.COMMON)
    parts = [
        "Usage:  wherry [OPTIONS] COMMAND\n\nA container engine that speaks the Docker Engine API\n",
        "Common Commands:\n" + _listing((n, names[n].short) for n in commands.COMMON),
        "Management Commands:\n" + _listing(sorted(commands.GROUPS.items())),
        "Commands:\n" + _listing((n, names[n].short) for n in others),
        "Global Options:\n" + flag_table(global_flags),
        "Run 'wherry COMMAND --help' for more information on a command.\n",
    ]
    return "\n".join(parts)


def of_group(group: str) -> str:
    listing = _listing((name, entry.short) for name, entry in commands.in_group(group))
    flags = commands.group_flags(group)
    options = f"Options:\n{flag_table([one for one in flags if not one.hidden])}\n" if flags else ""
    return (
        f"Usage:  wherry {group} {'[OPTIONS] ' if flags else ''}COMMAND\n\n"
        f"{(commands.GROUPS | commands.NESTED)[group]}\n\n{options}Commands:\n{listing}\n"
        f"Run 'wherry {group} COMMAND --help' for more information on a command.\n"
    )


def of_command(found: commands.FoundCommand) -> str:
    entry = found.entry
    assert entry is not None
    command = commands.load(entry)
    text = f"Usage:  {found.path} {command.usage}".rstrip() + "\n\n"
    text += (command.description or entry.short) + "\n"
    if len(entry.paths) > 1:
        text += "\nAliases:\n  " + ", ".join(f"wherry {path}" for path in entry.paths) + "\n"
    visible = [flag for flag in command.flags if not flag.hidden]
    if visible:
        text += "\nOptions:\n" + flag_table(visible)
    return text


def _listing(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"  {name:<11} {short}\n" for name, short in rows)


def flag_table(flags: Sequence[Flag]) -> str:
    """Flags sorted by name, with texts wrapped to the terminal's width."""
    ordered = sorted(flags, key=lambda flag: flag.name)
    heads = [_head(flag) for flag in ordered]
    column = max(len(head) for head in heads) + 3
    width = _terminal_width() - 1
    lines = []
    for flag, head in zip(ordered, heads, strict=True):
        text = flag.text + (f" (default {flag.shown})" if flag.shown else "")
        lines.append(f"{head:<{column}}" + wrap(text, column, width))
    return "\n".join(lines) + "\n"


def _head(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    return f"  {short}--{flag.name}" + (f" {flag.kind.name}" if flag.kind.name else "")


def wrap(text: str, indent: int, width: int) -> str:
    """Break ``text`` at spaces into lines of ``width`` less ``indent``, the later ones indented."""
    room = width - indent
    if room < 24:
        indent, room = 16, width - 16
        if room < 24:
            return text
    room -= SLOP
    lines: list[str] = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while len(rest) > room + SLOP:
            cut = rest.rfind(" ", 0, room)
            if cut <= 0:
                break
            lines.append(rest[:cut])
            rest = rest[cut + 1 :]
        lines.append(rest)
    return ("\n" + " " * indent).join(lines)


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(0).columns or 80
    except OSError:
        return 80
