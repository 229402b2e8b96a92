"""``wherry compose up|create|scale``: create and start what the file describes."""

from __future__ import annotations

import os
import time

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.converging import containers_of, converge, converger
from wherry.cli.composing.flags import DRY_RUN, QUIET_PULL, REMOVE_ORPHANS, SCALE, YES
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, LIST, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.project import Project
    from wherry.compose.state import ProjectContainer

    Found = Mapping[str, Sequence[ProjectContainer]]


def up(ctx: Context, options: Options, args: list[str]) -> int:
    _check(options)
    with ComposeSession(ctx, options) as session:
        project = session.project(args, dependencies=not options.on("no-deps"))
        return bring_up(session, project, args)


def detached() -> Options:
    """The flags of ``up -d --remove-orphans``."""
    from wherry.cli.grammar.flags import Options as Parsed

    made = Parsed(UP.flags)
    flags = {flag.name: flag for flag in UP.flags}
    for name in ("detach", "remove-orphans"):
        made.set(flags[name], "true")
    return made


def bring_up(session: ComposeSession, project: Project, args: Sequence[str], *, note: str = "") -> int:
    """``up`` of a project that has been read.

    :param note: the reason, shown in the history; empty for a plain ``up``.
    """
    options = session.options
    _scale(project, options.get("scale"))
    exit_from = options.text("exit-code-from")
    if exit_from:
        project.service(exit_from)
    detached = options.on("detach") or options.on("wait") or options.on("rolling") or session.dry_run
    if options.on("rolling"):
        from wherry.compose.engine import require_wherry

        with session.sessions.lend() as api:
            require_wherry(api, "up --rolling")
    with session.display() as display:
        made = converger(session, project, args, display.say)
        found = containers_of(project, made)
        if not options.on("no-start") and detached:
            _start(session, project, found, display.say)
        if options.on("rolling"):
            from wherry.compose import rolling

            wait = float(options.number("wait-timeout")) if options.given("wait-timeout") else None
            rolling.roll(session.sessions, project, made, wait)
    if not args and not session.dry_run and not options.on("no-start"):
        from wherry.cli.composing import remembering

        remembering.remember(session, project, note)
    if options.on("no-start") or detached:
        return 0
    from wherry.cli.composing.attached import Attached, Look

    abort = "exit" if options.on("abort-on-container-exit") or exit_from else ""
    abort = abort or ("failure" if options.on("abort-on-container-failure") else "")
    watched = []
    if options.on("watch"):
        from wherry.cli.composing import watching

        watched = watching.triggers_of(project, list(project.services))
    attached = Attached(
        session,
        project,
        found,
        _shown(project, options, args),
        abort=abort,
        exit_from=exit_from,
        look=Look(
            prefix=not options.on("no-log-prefix"),
            colour=not options.on("no-color"),
            timestamps=options.on("timestamps"),
        ),
        watched=watched,
        menu=_wants_menu(options),
    )
    return attached.run()


def _wants_menu(options: Options) -> bool:
    """``--menu``, else COMPOSE_MENU, else whatever the terminal can do.

    :raises Failure: it was asked for, and there is no terminal.
    """
    from wherry.cli.composing import menu

    if options.given("menu"):
        if options.on("menu") and not menu.possible():
            raise Failure("--menu needs a terminal")
        return options.on("menu")
    return os.environ.get("COMPOSE_MENU", "true").lower() in ("1", "true", "t") and menu.possible()


def _start(session: ComposeSession, project: Project, found: Found, say: object) -> None:
    from wherry.compose import running
    from wherry.compose.reporting import ProjectReporter

    report = ProjectReporter(say, session.warn, session.confirm)  # type: ignore[arg-type]
    running.start(session.sessions, project, found, report, dry_run=session.dry_run)
    if session.options.on("wait") and not session.dry_run:
        deadline = None
        if session.options.given("wait-timeout"):
            deadline = time.monotonic() + session.options.number("wait-timeout")
        running.wait_until_up(session.sessions, project, found, report, deadline=deadline)


def _scale(project: Project, given: Sequence[tuple[str, int]]) -> None:
    for name, count in given:
        service = project.service(name)
        if service.get("container_name") and count > 1:
            raise Failure(
                f"cannot scale service {name}: it has a container_name, which only one container can have"
            )
        service["scale"] = count


def _shown(project: Project, options: Options, args: Sequence[str]) -> set[str]:
    """The services whose output is shown."""
    attach, no_attach = options.many("attach"), options.many("no-attach")
    for name in [*attach, *no_attach]:
        project.service(name)
    if attach:
        return set(attach)
    names = set(project.services)
    if args and not options.on("attach-dependencies"):
        names = set(args)
    return {n for n in names if n not in no_attach and project.services[n].get("attach", True)}


def _check(options: Options) -> None:
    """Refuse flags that contradict each other, and unsupported ones."""
    on = options.on
    if on("build") and on("no-build"):
        raise Failure("--build and --no-build are incompatible")
    if on("force-recreate") and on("no-recreate"):
        raise Failure("--force-recreate and --no-recreate are incompatible")
    if on("always-recreate-deps") and on("no-recreate"):
        raise Failure("--always-recreate-deps and --no-recreate are incompatible")
    if on("rolling") and (on("no-start") or on("no-recreate")):
        word = "--no-start" if on("no-start") else "--no-recreate"
        raise Failure(f"--rolling and {word} are incompatible")
    if on("rolling") and on("watch"):
        raise Failure("--rolling and --watch are incompatible")
    detached = on("detach") or on("wait") or on("rolling")
    if detached and on("menu"):
        raise Failure("--detach and --menu are incompatible")
    if detached and on("watch"):
        raise Failure("--detach and --watch are incompatible")
    attaching = (
        on("abort-on-container-exit") or on("abort-on-container-failure") or options.text("exit-code-from")
    )
    if detached and (attaching or options.many("attach") or on("attach-dependencies")):
        word = "--wait" if on("wait") else "--rolling" if on("rolling") else "--detach"
        raise Failure(
            f"{word} cannot be combined with --abort-on-container-exit, --abort-on-container-failure, "
            "--exit-code-from, "
            "--attach or --attach-dependencies"
        )
    if on("abort-on-container-exit") and on("abort-on-container-failure"):
        raise Failure("--abort-on-container-exit and --abort-on-container-failure are incompatible")
    if options.many("attach") and on("attach-dependencies"):
        raise Failure("cannot combine --attach and --attach-dependencies")
    if options.given("wait-timeout") and options.number("wait-timeout") < 0:
        raise Failure("--wait-timeout must be a non-negative integer")


def create(ctx: Context, options: Options, args: list[str]) -> int:
    if options.on("build") and options.on("no-build"):
        raise Failure("--build and --no-build are incompatible")
    if options.on("force-recreate") and options.on("no-recreate"):
        raise Failure("--force-recreate and --no-recreate are incompatible")
    with ComposeSession(ctx, options) as session:
        project = session.project(args)
        _scale(project, options.get("scale"))
        with session.display() as display:
            converge(session, project, args, display.say)
        return 0


def scale(ctx: Context, options: Options, args: list[str]) -> int:
    counts: list[tuple[str, int]] = []
    for text in args:
        name, equals, count = text.partition("=")
        if not equals or not count.isdecimal():
            raise Failure(f"invalid scale specifier: {text}: write SERVICE=REPLICAS")
        counts.append((name, int(count)))
    with ComposeSession(ctx, _as_up(options)) as session:
        names = [name for name, _count in counts]
        project = session.project(names, dependencies=not options.on("no-deps"))
        _scale(project, counts)
        with session.display() as display:
            found = converge(session, project, names, display.say)
            _start(session, project, found, display.say)
        return 0


def _as_up(options: Options) -> Options:
    """``scale`` is an ``up -d`` that does not change other services' containers."""
    from wherry.cli.grammar.flags import Options as Parsed

    made = Parsed(UP.flags)
    if options.on("dry-run"):
        made.set(DRY_RUN, "true")
    return made


_BUILD = Flag("build", "", BOOL, "Build images before starting containers")
_FORCE = Flag(
    "force-recreate",
    "",
    BOOL,
    "Recreate containers even if their configuration and image haven't changed",
)
_NO_BUILD = Flag("no-build", "", BOOL, "Don't build an image, even if it's policy")
_NO_RECREATE = Flag(
    "no-recreate",
    "",
    BOOL,
    "If containers already exist, don't recreate them. Incompatible with --force-recreate.",
)
_PULL = Flag(
    "pull",
    "",
    STRING,
    'Pull image before running ("always"|"missing"|"never"|"build")',
    default="policy",
    shown='"policy"',
    complete="always missing never build",
)
UP = Command(
    "[OPTIONS] [SERVICE...]",
    up,
    (
        Flag(
            "abort-on-container-exit",
            "",
            BOOL,
            "Stops all containers if any container was stopped. Incompatible with -d",
        ),
        Flag(
            "abort-on-container-failure",
            "",
            BOOL,
            "Stops all containers if any container exited with failure. Incompatible with -d",
        ),
        Flag(
            "always-recreate-deps",
            "",
            BOOL,
            "Recreate dependent containers. Incompatible with --no-recreate.",
        ),
        Flag(
            "attach",
            "",
            LIST,
            "Restrict attaching to the specified services. Incompatible with --attach-dependencies.",
        ),
        Flag("attach-dependencies", "", BOOL, "Automatically attach to log output of dependent services"),
        _BUILD,
        Flag("detach", "d", BOOL, "Detached mode: Run containers in the background"),
        DRY_RUN,
        Flag(
            "exit-code-from",
            "",
            STRING,
            "Return the exit code of the selected service container. Implies --abort-on-container-exit",
        ),
        _FORCE,
        Flag(
            "menu",
            "",
            BOOL,
            "Enable interactive shortcuts when running attached. Incompatible with --detach. Can also be "
            "enable/disable by setting COMPOSE_MENU environment var.",
        ),
        Flag("no-attach", "", LIST, "Do not attach (stream logs) to the specified services"),
        _NO_BUILD,
        Flag("no-color", "", BOOL, "Produce monochrome output"),
        Flag("no-deps", "", BOOL, "Don't start linked services"),
        Flag("no-log-prefix", "", BOOL, "Don't print prefix in logs"),
        _NO_RECREATE,
        Flag("no-start", "", BOOL, "Don't start the services after creating them"),
        _PULL,
        Flag("quiet-build", "", BOOL, "Suppress the build output"),
        QUIET_PULL,
        REMOVE_ORPHANS,
        Flag(
            "renew-anon-volumes",
            "V",
            BOOL,
            "Recreate anonymous volumes instead of retrieving data from the previous containers",
        ),
        Flag(
            "rolling",
            "",
            BOOL,
            "Replace containers one after the other, while the service answers. Implies detached mode.",
        ),
        SCALE,
        Flag(
            "timeout",
            "t",
            INT,
            "Use this timeout in seconds for container shutdown when attached or when containers are "
            "already running",
        ),
        Flag("timestamps", "", BOOL, "Show timestamps"),
        Flag("wait", "", BOOL, "Wait for services to be running|healthy. Implies detached mode."),
        Flag(
            "wait-timeout",
            "",
            INT,
            "Maximum duration in seconds to wait for the project to be running|healthy",
        ),
        Flag("watch", "w", BOOL, "Watch source code and rebuild/refresh containers when files are updated."),
        YES,
    ),
    most=UNLIMITED,
)
CREATE = Command(
    "[OPTIONS] [SERVICE...]",
    create,
    (_BUILD, DRY_RUN, _FORCE, _NO_BUILD, _NO_RECREATE, _PULL, QUIET_PULL, REMOVE_ORPHANS, SCALE, YES),
    most=UNLIMITED,
)
SCALE_COMMAND = Command(
    "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    scale,
    (DRY_RUN, Flag("no-deps", "", BOOL, "Don't start linked services")),
    least=1,
    most=UNLIMITED,
)
