"""``wherry compose trash ls|restore|empty``: volumes that ``down -v`` put into the trash."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.render import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def ls(ctx: Context, options: Options, _args: list[str]) -> int:
    from datetime import datetime

    from wherry.cli.render.table import align
    from wherry.compose import trash

    with ComposeSession(ctx, options) as session, session.sessions.lend() as api:
        trash.empty(api)
        project = "" if options.on("all") else session.name()
        lines = ["PROJECT\tVOLUME\tREMOVED\tGOES\tKEPT AS"]
        for one in trash.content(api, project):
            goes = datetime.fromtimestamp(one.at + trash.KEPT).strftime("%Y-%m-%d %H:%M")
            lines.append("\t".join((one.project, one.original, units.ago(one.at), goes, one.name)))
    for line in align(lines).splitlines():
        ctx.line(line)
    return 0


def restore(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import trash

    with ComposeSession(ctx, options) as session, session.sessions.lend() as api:
        for one in trash.restore(api, session.name(), args):
            ctx.line(one.original)
    return 0


def empty(ctx: Context, options: Options, _args: list[str]) -> int:
    from wherry.compose import trash

    with ComposeSession(ctx, options) as session, session.sessions.lend() as api:
        project = "" if options.on("all") else session.name()
        for one in trash.empty(api, project, older_than=0):
            ctx.line(one.original)
    return 0


_ALL = Flag("all", "a", BOOL, "Include all projects")
LS = Command("[OPTIONS]", ls, (_ALL,), most=0)
RESTORE = Command("[VOLUME...]", restore, (), most=UNLIMITED)
EMPTY = Command("[OPTIONS]", empty, (_ALL,), most=0)
