"""``wherry compose explain|diff``: where values come from, and how containers differ from the file."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.console import one_line
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.client import jsonwire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def explain(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.render.table import align
    from wherry.compose import explaining
    from wherry.compose.defaults import with_environment

    session = ComposeSession(ctx, options)
    project = session.load()
    rows = ["\t".join(("KEY", "VALUE", "WHERE"))]
    service = with_environment(project, project.service(args[0]))
    for path, value, where in explaining.lines(service):
        rows.append("\t".join((one_line(path), one_line(value), one_line(where))))
    ctx.write(align(rows))
    return 0


def diff(ctx: Context, options: Options, args: list[str]) -> int:
    """The exit code is 1 if anything differs, as in diff(1)."""
    from wherry.compose import drift, pulling, state
    from wherry.compose.converge import ConvergePlan, Converger
    from wherry.compose.project import image_of

    with ComposeSession(ctx, options) as session:
        project = session.project(args, dependencies=False)
        with session.sessions.lend() as api:
            found = state.of_project(api, project.name)
            held = {name: pulling.local(api, image_of(project, name)) for name in project.services}
            identities = {name: str((one or {}).get("Id") or "") for name, one in held.items()}
            converger = Converger(
                project, found, identities, ConvergePlan(dry_run=True), session.report(session.display())
            )
            told = [(n, *one) for n in project.services for one in drift.of_service(api, converger, n)]
        orphans = [one.name for one in found if one.service not in project.all_services] if not args else []
        told += [("", name, [("container", "there", "gone")]) for name in orphans]
        for service, container, differences in told:
            for what, now, wanted in differences:
                if options.on("json"):
                    made = {"Service": service, "Container": container, "What": what}
                    made |= {"Is": now, "Wanted": wanted}
                    ctx.raw(jsonwire.dumps(made))
                else:
                    ctx.line(f"{container}: {what}: {now} -> {wanted}")
        return 1 if told else 0


EXPLAIN = Command("SERVICE", explain, (DRY_RUN,), least=1, most=1)
DIFF = Command(
    "[OPTIONS] [SERVICE...]",
    diff,
    (DRY_RUN, Flag("json", "", BOOL, "A JSON object a difference")),
    most=UNLIMITED,
    description="Show what runs against what the file says.\n\n"
    "Nothing, and exit code 0, where all is as it should be; else a line a difference, and 1.",
)
