"""``wherry compose watch``: when local files change, copy them to containers, restart or rebuild services."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.commands.compose.up import UP
from wherry.cli.composing.converging import converge
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag, Options
from wherry.cli.grammar.values import BOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context


def run(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.composing import watching
    from wherry.compose import running

    session = ComposeSession(ctx, _as_up(options))
    try:
        project = session.project(args)
        found = watching.triggers_of(project, [n for n in project.services if not args or n in args])
        if not options.on("no-up"):
            with session.display() as display:
                existing = converge(session, project, args, display.say)
                running.start(
                    session.sessions, project, existing, session.report(display), dry_run=session.dry_run
                )
        if session.dry_run:
            return 0
        watching.loop(session, project, found, quiet=options.on("quiet"), prune=options.on("prune"))
        return 0
    except KeyboardInterrupt:
        ctx.complain("Watch disabled")
        return 130
    finally:
        session.close()


def _as_up(options: Options) -> Options:
    made = Options(UP.flags)
    if options.on("dry-run"):
        made.set(DRY_RUN, "true")
    return made


WATCH = Command(
    "[SERVICE...]",
    run,
    (
        DRY_RUN,
        Flag("no-up", "", BOOL, "Do not build & start services before watching"),
        Flag("prune", "", BOOL, "Prune dangling images on rebuild", default=True, shown="true"),
        Flag("quiet", "", BOOL, "hide build output"),
    ),
    most=UNLIMITED,
)
