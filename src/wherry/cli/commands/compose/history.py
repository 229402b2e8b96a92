"""``wherry compose history`` and ``rollback``: list a project's earlier states, and return to one."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.composing import remembering
from wherry.cli.composing.session import ComposeSession
from wherry.cli.render import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def history(ctx: Context, options: Options, _args: list[str]) -> int:
    from wherry.cli.render.table import align
    from wherry.compose.history import differences

    with ComposeSession(ctx, options) as session:
        entries = remembering.history_of(session, session.name()).entries()
    lines = ["ENTRY\tWHEN\tCHANGED\tNOTE"]
    for place, (number, entry) in enumerate(entries):
        before = entries[place - 1][1] if place else None
        told = differences(before, entry)
        lines.append("\t".join((str(number), units.ago(entry["at"]), told, entry["note"])))
    for line in align(lines).splitlines():
        ctx.line(line.rstrip())
    return 0


def rollback(ctx: Context, options: Options, args: list[str]) -> int:
    """Return a project to an earlier state: an ``up -d`` of an entry, with the images that it had."""
    from wherry.cli.commands.compose import up
    from wherry.cli.composing.flags import GLOBAL
    from wherry.cli.grammar.flags import Options as Parsed
    from wherry.compose.history import as_it_was

    if not args[0].isdecimal():
        raise Failure(f"invalid entry {args[0]!r}: use a number of wherry compose history")
    number = int(args[0])
    with ComposeSession(ctx, options) as session:
        name = session.name()
        kept = remembering.history_of(session, name)
        entry = kept.entry(number)
        with session.sessions.lend() as api:
            path = kept.keep_rollback(as_it_was(api, entry))
    group, flags = Parsed(GLOBAL), {flag.name: flag for flag in GLOBAL}
    where = {"file": str(path), "project-name": name, "project-directory": entry["directory"]}
    for flag, value in where.items():
        group.set(flags[flag], value)
    with ComposeSession(ctx.derived(group=group), up.detached()) as session:
        return up.bring_up(session, session.project([]), [], note=f"rollback to {number}")


HISTORY = Command("", history, (), most=0)
ROLLBACK = Command("ENTRY", rollback, (), least=1, most=1)
