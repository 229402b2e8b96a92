"""``wherry compose down``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN, REMOVE_ORPHANS, TIMEOUT
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def down(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import downing

    if options.given("rmi") and options.text("rmi") not in ("all", "local"):
        raise Failure(f'invalid value for --rmi: "{options.text("rmi")}"')
    with ComposeSession(ctx, options) as session:
        project = session.maybe_project()
        from_file = project is not None
        if project is None:
            with session.sessions.lend() as api:
                project = downing.remembered(api, session.given_name)
        for name in args:
            project.service(name)
        with session.display() as display:
            plan = downing.DownPlan(
                services=args,
                from_file=from_file,
                remove_orphans=options.on("remove-orphans"),
                with_volumes=options.on("volumes"),
                keep=not options.on("no-trash"),
                rmi=options.text("rmi"),
                timeout=session.timeout,
                dry_run=session.dry_run,
            )
            downing.down(session.sessions, project, session.report(display), plan)
        if options.on("volumes") and not session.dry_run:
            from wherry.compose import trash

            with session.sessions.lend() as api:
                trash.empty(api)
        if plan.kept:
            days, many = trash.KEPT // 86400, "s" if len(plan.kept) > 1 else ""
            ctx.complain(
                f"moved {len(plan.kept)} volume{many} to the trash for {days} days"
                " (to undo: wherry compose trash restore)"
            )
        return 0


DOWN = Command(
    "[OPTIONS] [SERVICES]",
    down,
    (
        DRY_RUN,
        Flag("no-trash", "", BOOL, "Remove volumes for good (with -v)"),
        REMOVE_ORPHANS,
        Flag(
            "rmi",
            "",
            STRING,
            'Remove images used by services. "local" remove only images that don\'t have a custom tag '
            '("local"|"all")',
            complete="local all",
        ),
        TIMEOUT,
        Flag(
            "volumes",
            "v",
            BOOL,
            'Remove named volumes declared in the "volumes" section of the Compose file and anonymous '
            "volumes attached "
            "to containers",
        ),
    ),
    most=UNLIMITED,
)
