"""``wherry exec ls|stop|kill``: list and stop a container's execs.

The same commands are also called ``container exec-ls`` and so on, which cannot be confused with a container's
name.
"""

from __future__ import annotations

from wherry.cli.command import Command, Failure, each
from wherry.cli.grammar.common import FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, STRING
from wherry.cli.render import table, units
from wherry.cli.render.rows import fields
from wherry.client import exec as execs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


class ExecLine(table.Row):
    """One exec of ``/containers/{id}/execs``."""

    FIELDS = fields("Command ID Pid Processes Since State User")
    HEADERS = {
        "ID": "EXEC ID",
        "Pid": "PID",
        "Command": "COMMAND",
        "User": "USER",
        "Since": "SINCE",
        "Processes": "PROCESSES",
        "State": "STATE",
    }
    TABLE = "{{.ID}}\t{{.Pid}}\t{{.User}}\t{{.Command}}\t{{.Since}}\t{{.Processes}}\t{{.State}}"

    def __init__(self, found: dict[str, Any], *, truncate: bool = True) -> None:
        self.e, self.truncate = found, truncate

    def get_id(self) -> str:
        identifier = str(self.e.get("ID", ""))
        return units.short_id(identifier) if self.truncate else identifier

    def get_pid(self) -> str:
        return str(self.e.get("Pid") or "-")

    def get_user(self) -> str:
        return str(self.e.get("User") or "root")

    def get_command(self) -> str:
        command = " ".join(str(word) for word in self.e.get("Command") or [])
        return units.ellipsis(command, 40) if self.truncate else command

    def get_since(self) -> str:
        return units.ago(units.parse_time(str(self.e.get("StartedAt", ""))))

    def get_processes(self) -> str:
        return str(self.e.get("Processes", 0))

    def get_state(self) -> str:
        return "running" if self.e.get("Running") else f"exited ({self.e.get('ExitCode')})"


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format") or "table"
    if options.on("quiet"):
        layout = "{{.ID}}"
    truncate = not options.on("no-trunc")
    rows = [ExecLine(e, truncate=truncate) for e in execs.listing(ctx.api, args[0])]
    table.show(ctx, rows, layout, default=ExecLine.TABLE, headers=ExecLine.HEADERS)
    return 0


def _wanted(ctx: Context, args: list[str]) -> list[str]:
    """The IDs of the selected execs: all of the container's, or those that begin with the other arguments.

    :raises Failure: there is no such exec, or the prefix is ambiguous.
    """
    known = [str(e["ID"]) for e in execs.listing(ctx.api, args[0])]
    if len(args) == 1:
        return known
    found = []
    for prefix in args[1:]:
        matching = [identifier for identifier in known if identifier.startswith(prefix)]
        if len(matching) != 1:
            what = "several execs begin" if matching else "no exec that runs begins"
            raise Failure(f"container {args[0]}: {what} with {prefix!r}")
        found += matching
    return found


def _every(action: Callable[[Context, Options, str], None]) -> Callable[[Context, Options, list[str]], int]:
    def run(ctx: Context, options: Options, args: list[str]) -> int:
        def one(identifier: str) -> str:
            action(ctx, options, identifier)
            return identifier

        return each(ctx, _wanted(ctx, args), one)

    return run


def _stop(ctx: Context, options: Options, identifier: str) -> None:
    timeout = options.number("timeout") if options.given("timeout") else None
    execs.stop(ctx.api, identifier, timeout)


def _kill(ctx: Context, options: Options, identifier: str) -> None:
    execs.kill(ctx.api, identifier, options.text("signal"))


_USAGE = "[OPTIONS] CONTAINER [EXEC...]"
_ALL = "Without EXEC all execs of the container are meant; an ID may be shortened."
LS = Command(
    "[OPTIONS] CONTAINER",
    listing,
    (FORMAT_TABLE, NO_TRUNC, Flag("quiet", "q", BOOL, "Only display exec IDs")),
    least=1,
    most=1,
    complete="running none",
    description="Execs that run, and those that ended and left processes running.",
)
STOP = Command(
    _USAGE,
    _every(_stop),
    (Flag("timeout", "t", INT, "Seconds to wait before killing what is left (-1: for ever)"),),
    least=1,
    most=-1,
    complete="running none",
    description=f"SIGTERM to every process of an exec, then SIGKILL. {_ALL}",
)
KILL = Command(
    _USAGE,
    _every(_kill),
    (Flag("signal", "s", STRING, "Signal to send; KILL, the default, is for every process of the exec"),),
    least=1,
    most=-1,
    complete="running none",
    description=f"Signals other than KILL go to an exec's first process. {_ALL}",
)
