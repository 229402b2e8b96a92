"""Man pages of every command and of the daemon, made from the tables that help and completion read.

python packaging/man.py DIRECTORY
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wherry import __version__
from wherry.cli import commands
from wherry.cli.grammar.flags import Flag
from wherry.cli.main import global_flags
from wherry.daemon.config import FILE_KEYS
from wherry.daemon.configfile import ConfigFile
from wherry.daemon.flags import make_parser

_DATE = "2026-11"


def escaped(text: str) -> str:
    """Plain text for roff: a hyphen is a minus, and no line begins with a request (groff(7))."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def page(name: str, section: int, short: str, parts: Iterable[tuple[str, str]]) -> str:
    """:param parts: headings, and their text in roff."""
    head = f'.TH "{name.upper()}" "{section}" "{_DATE}" "wherry {__version__}" "wherry"\n'
    body = f".SH NAME\n{escaped(name)} \\- {escaped(short)}\n"
    return head + body + "".join(f".SH {heading}\n{text}" for heading, text in parts if text)


def flag_list(flags: Sequence[Flag]) -> str:
    return "".join(
        f".TP\n.B {escaped(_head(flag))}\n{escaped(_text(flag))}\n"
        for flag in sorted(flags, key=lambda one: one.name)
        if not flag.hidden
    )


def _head(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else ""
    return f"{short}--{flag.name}" + (f" {flag.kind.name}" if flag.kind.name else "")


def _text(flag: Flag) -> str:
    return flag.text + (f" (default {flag.shown})" if flag.shown else "")


def client_pages() -> Iterator[tuple[str, str]]:
    """File names, and the pages of ``wherry``, its groups and commands."""
    names = dict(commands.top_level())
    listed = sorted([*names.items()], key=lambda one: one[0])
    yield (
        "man1/wherry.1",
        page(
            "wherry",
            1,
            "a container engine that speaks the Docker Engine API",
            [
                ("SYNOPSIS", ".B wherry\n[OPTIONS] COMMAND [ARG...]\n"),
                ("OPTIONS", flag_list(global_flags())),
                ("COMMANDS", _listing((name, entry.short) for name, entry in listed)),
                ("GROUPS", _listing(sorted(commands.GROUPS.items()))),
                ("SEE ALSO", ".BR wherryd (8),\n.BR wherry\\-daemon.json (5)\n"),
            ],
        ),
    )
    for group, short in {**commands.GROUPS, **commands.NESTED}.items():
        below = [(f"{group} {name}", entry.short) for name, entry in commands.in_group(group)]
        title = f"wherry-{group.replace(' ', '-')}"
        parts = [
            ("SYNOPSIS", f".B wherry {escaped(group)}\n[OPTIONS] COMMAND [ARG...]\n"),
            ("OPTIONS", flag_list(commands.group_flags(group))),
            ("COMMANDS", _listing(below)),
            ("SEE ALSO", ".BR wherry (1)\n"),
        ]
        yield f"man1/{title}.1", page(title, 1, short, parts)
    for entry in commands.TABLE:
        if not entry.hidden:
            yield from _command_pages(entry)


def _command_pages(entry: commands.TableEntry) -> Iterator[tuple[str, str]]:
    command = commands.load(entry)
    first, *others = entry.paths
    title = f"wherry-{first.replace(' ', '-')}"
    aliases = "".join(f".br\n.B wherry {escaped(path)}\n" for path in others)
    parts = [
        ("SYNOPSIS", f".B wherry {escaped(first)}\n{escaped(command.usage)}\n"),
        ("ALIASES", aliases.removeprefix(".br\n")),
        ("DESCRIPTION", f"{escaped(command.description or entry.short)}\n"),
        ("OPTIONS", flag_list(command.flags)),
        ("EXIT STATUS", _status(first)),
        ("SEE ALSO", ".BR wherry (1)\n"),
    ]
    yield f"man1/{title}.1", page(title, 1, entry.short, parts)
    for path in others:
        yield f"man1/wherry-{path.replace(' ', '-')}.1", f".so man1/{title}.1\n"


def _status(path: str) -> str:
    if path in ("container run", "container exec", "run", "exec", "compose run", "compose exec"):
        return (
            "That of the command in the container; 125 if wherry fails, 126 if the command cannot be "
            "executed, 127 if it does not exist.\n"
        )
    return "0; 1 for an error; 125 for a wrong command line.\n"


def _listing(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n.B wherry {escaped(name)}\n{escaped(short)}\n" for name, short in rows)


_FILES = """.TP
.I /etc/wherry/daemon.json
The configuration.
.TP
.I /var/lib/wherry
What is kept: images, containers, volumes.
.TP
.I /run/wherry
The socket, and what lives as long as the daemon or a container.
"""


def daemon_page() -> str:
    """``wherryd``: its flags, from the parser that reads them."""
    lines = []
    for action in make_parser()._actions:
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        value = action.metavar if isinstance(action.metavar, str) and action.nargs != 0 else ""
        head = ", ".join(action.option_strings) + (f" {value}" if value else "")
        lines.append(f".TP\n.B {escaped(head)}\n{escaped(action.help or '')}\n")
    parts = [
        ("SYNOPSIS", ".B wherryd\n[OPTIONS]\n.br\n.B wherryd doctor\n[\\-\\-fix] [\\-\\-format text|json]\n"),
        ("DESCRIPTION", "The daemon: the Engine API on a socket. It must run as root.\n"),
        ("OPTIONS", "".join(lines)),
        ("FILES", _FILES),
        ("SEE ALSO", ".BR wherry (1),\n.BR wherry\\-daemon.json (5)\n"),
    ]
    return page("wherryd", 8, "the wherry daemon", parts)


_FILE = """The daemon's configuration in JSON, with the keys of Docker's file.
A key that is given as a flag as well is an error; one that is not known is refused by name.
"""


def file_page() -> str:
    """``daemon.json``: its keys, from the type that reads it, and the flags that say the same."""
    helps = {
        FILE_KEYS.get(a.dest, a.dest): (a.option_strings[0], a.help or "")
        for a in make_parser()._actions
        if a.option_strings
    }
    lines = []
    for field, key in zip(ConfigFile.__struct_fields__, ConfigFile.__struct_encode_fields__, strict=True):
        flag, text = helps.get(field) or helps.get(field.removesuffix("s")) or ("", "")
        text = text.rstrip(".")
        said = f"As {flag} of wherryd: {text}." if flag else "See the documentation."
        lines.append(f".TP\n.B {escaped(key)}\n{escaped(said)}\n")
    parts = [
        ("DESCRIPTION", _FILE),
        ("KEYS", "".join(lines)),
        ("SEE ALSO", ".BR wherryd (8)\n"),
    ]  # fmt: skip
    return page("wherry-daemon.json", 5, "configuration of the wherry daemon", parts)


def pages() -> dict[str, str]:
    found = dict(client_pages())
    found["man8/wherryd.8"] = daemon_page()
    found["man5/wherry-daemon.json.5"] = file_page()
    return found


def main(directory: Path) -> None:
    os.environ["HOME"] = "~"  # defaults below it are the reader's
    for name, text in pages().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
