"""``wherry compose start|stop|restart|kill|rm|pause|unpause|wait``."""

from __future__ import annotations

import time

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN, REMOVE_ORPHANS, TIMEOUT
from wherry.cli.composing.session import ComposeSession
from wherry.cli.console import confirm
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, STRING
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer

    Work = Callable[[Api, ProjectContainer], None]


def _project(session: ComposeSession) -> Project:
    """The project in the file; without a file, the project from its containers' labels."""
    project = session.maybe_project()
    if project is not None:
        return project
    from wherry.compose import downing

    with session.sessions.lend() as api:
        return downing.remembered(api, session.given_name)


def _each(
    session: ComposeSession,
    found: list[ProjectContainer],
    report: ProjectReporter,
    doing: str,
    done: str,
    work: Work,
) -> None:
    """Do the same to all containers in parallel."""
    from wherry.compose.work import run_all

    def task(one: ProjectContainer) -> Callable[[Api], None]:
        def run(api: Api) -> None:
            if doing:
                report.container(one.name, doing)
            if not session.dry_run:
                work(api, one)
            report.container(one.name, done)

        return run

    run_all(session.sessions, [task(one) for one in found])


def start(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import running, selecting, state

    with ComposeSession(ctx, options) as session:
        project = _project(session)
        selecting.choose(project, args)
        found = session.containers(project=project.name)
        grouped = {name: some for name, some in state.by_service(found).items() if name in project.services}
        for name in args or project.services:
            if name not in grouped and project.replicas(name):
                raise Failure(f'service "{name}" has no container to start')
        with session.display() as display:
            report = session.report(display)
            running.start(session.sessions, project, grouped, report, dry_run=session.dry_run)
            if options.on("wait"):
                limit = options.number("wait-timeout") if options.given("wait-timeout") else None
                deadline = None if limit is None else time.monotonic() + limit
                running.wait_until_up(session.sessions, project, grouped, report, deadline=deadline)
        return 0


def stop(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import running, state

    with ComposeSession(ctx, options) as session:
        project = _project(session)
        found = [one for one in session.containers(args, project=project.name) if one.runs]
        with session.display() as display:
            running.stop(
                session.sessions,
                project,
                state.by_service(found),
                session.report(display),
                timeout=session.timeout,
                dry_run=session.dry_run,
            )
        return 0


def restart(ctx: Context, options: Options, args: list[str]) -> int:
    """The named services, and those that ask to be restarted with their dependencies."""
    from wherry.compose import state
    from wherry.compose.work import in_order

    with ComposeSession(ctx, options) as session:
        project = _project(session)
        chosen = set(args) or set(project.services)
        if args and not options.on("no-deps"):
            for name in list(project.services):
                needs = project.dependencies(name)
                if any(how.get("restart") and other in chosen for other, how in needs.items()):
                    chosen.add(name)
        grouped = state.by_service(list(session.containers(args and sorted(chosen), project=project.name)))
        with session.display() as display:
            report = session.report(display)

            def work(api: Api, name: str) -> None:
                def one(api: Api, container: ProjectContainer) -> None:
                    containers.restart(api, container.id, timeout=session.timeout)

                _each(session, grouped[name], report, "Restarting", "Started", one)

            needs = {n: list(project.dependencies(n)) if n in project.all_services else [] for n in grouped}
            in_order(session.sessions, needs, work)
        return 0


def kill(ctx: Context, options: Options, args: list[str]) -> int:
    with ComposeSession(ctx, options) as session:
        project = _project(session)
        found = session.containers(args, project=project.name, all=False)
        known = project.all_services
        if not args and not options.on("remove-orphans"):
            found = [one for one in found if one.service in known]
        with session.display() as display:
            report = session.report(display)

            def work(api: Api, one: ProjectContainer) -> None:
                containers.kill(api, one.id, options.text("signal"))
                if options.on("remove-orphans") and one.service not in known:
                    containers.remove(api, one.id, force=True)

            _each(session, found, report, "Killing", "Killed", work)
        if not found:
            ctx.complain("no container to kill")
        return 0


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import running, state

    with ComposeSession(ctx, options) as session:
        project = _project(session)
        found = session.containers(args, project=project.name, oneoff=None)
        if options.on("stop"):
            with session.display() as display:
                alive = state.by_service([one for one in found if one.runs])
                running.stop(
                    session.sessions, project, alive, session.report(display), dry_run=session.dry_run
                )
            found = session.containers(args, project=project.name, oneoff=None)
        stopped = [one for one in found if not one.runs or (options.on("stop") and session.dry_run)]
        if not stopped:
            ctx.complain("No stopped containers")
            return 0
        names = ", ".join(one.name for one in stopped)
        if options.on("force"):
            ctx.line(f"Going to remove {names}")
        elif not confirm(f"Going to remove {names}\nAre you sure?"):
            return 0
        with session.display() as display:

            def work(api: Api, one: ProjectContainer) -> None:
                containers.remove(api, one.id, force=True, volumes=options.on("volumes"))

            _each(session, stopped, session.report(display), "Removing", "Removed", work)
        return 0


def _pausing(pause: bool) -> Callable[[Context, Options, list[str]], int]:
    def run(ctx: Context, options: Options, args: list[str]) -> int:
        session = ComposeSession(ctx, options)
        try:
            found = [
                one for one in session.containers(args) if one.state == ("running" if pause else "paused")
            ]

            def work(api: Api, one: ProjectContainer) -> None:
                (containers.pause if pause else containers.unpause)(api, one.id)

            with session.display() as display:
                _each(session, found, session.report(display), "", "Paused" if pause else "Unpaused", work)
            return 0
        finally:
            session.close()

    return run


def wait(ctx: Context, options: Options, args: list[str]) -> int:
    """Print each container's exit code when it ends; the last one is our exit code."""
    from wherry.compose.work import run_all

    with ComposeSession(ctx, options) as session:
        project = _project(session)
        for name in args:
            project.service(name)
        found = session.containers(args, project=project.name, all=False)
        if not found:
            raise Failure('no containers for project "' + project.name + '"')
        if options.on("down-project"):
            return _wait_and_down(session, project, found)

        def task(one: ProjectContainer) -> Callable[[Api], int]:
            def work(api: Api) -> int:
                code, _problem = containers.exit_status(containers.wait(api, one.id).read_all())
                ctx.line(f"container {one.name!r} exited with status code {code}".replace("'", '"'))
                return code

            return work

        codes = run_all(session.sessions, [task(one) for one in found])
        return int(codes[-1])


def _wait_and_down(session: ComposeSession, project: Project, found: list[ProjectContainer]) -> int:
    """Wait until the first of them ends, then remove the project."""
    import queue
    import threading

    from wherry.compose import downing

    ended: queue.Queue[int] = queue.Queue()

    def watch(one: ProjectContainer) -> None:
        with session.sessions.lend() as api:
            ended.put(containers.exit_status(containers.wait(api, one.id).read_all())[0])

    for one in found:
        threading.Thread(target=watch, args=(one,), daemon=True).start()
    code = ended.get()
    with session.display() as display:
        plan = downing.DownPlan(dry_run=session.dry_run)
        downing.down(session.sessions, project, session.report(display), plan)
    return code


START = Command(
    "[SERVICE...]",
    start,
    (
        DRY_RUN,
        Flag("wait", "", BOOL, "Wait for services to be running|healthy"),
        Flag(
            "wait-timeout",
            "",
            INT,
            "Maximum duration in seconds to wait for the project to be running|healthy",
        ),
    ),
    most=UNLIMITED,
)
STOP = Command("[OPTIONS] [SERVICE...]", stop, (DRY_RUN, TIMEOUT), most=UNLIMITED)
RESTART = Command(
    "[OPTIONS] [SERVICE...]",
    restart,
    (DRY_RUN, Flag("no-deps", "", BOOL, "Don't restart dependent services"), TIMEOUT),
    most=UNLIMITED,
)
KILL = Command(
    "[OPTIONS] [SERVICE...]",
    kill,
    (
        DRY_RUN,
        REMOVE_ORPHANS,
        Flag("signal", "s", STRING, "SIGNAL to send to the container", default="SIGKILL", shown='"SIGKILL"'),
    ),
    most=UNLIMITED,
)
RM = Command(
    "[OPTIONS] [SERVICE...]",
    remove,
    (
        DRY_RUN,
        Flag("force", "f", BOOL, "Don't ask to confirm removal"),
        Flag("stop", "s", BOOL, "Stop the containers, if required, before removing"),
        Flag("volumes", "v", BOOL, "Remove any anonymous volumes attached to containers"),
    ),
    most=UNLIMITED,
)
PAUSE = Command("[SERVICE...]", _pausing(True), (DRY_RUN,), most=UNLIMITED)
UNPAUSE = Command("[SERVICE...]", _pausing(False), (DRY_RUN,), most=UNLIMITED)
WAIT = Command(
    "SERVICE [SERVICE...] [OPTIONS]",
    wait,
    (Flag("down-project", "", BOOL, "Drops project when the first container stops"), DRY_RUN),
    least=1,
    most=UNLIMITED,
)
