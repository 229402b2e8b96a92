"""``wherry compose run``: another command in a container of a service."""

from __future__ import annotations

import os

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN, QUIET_PULL, REMOVE_ORPHANS
from wherry.cli.composing.session import ComposeSession
from wherry.cli.console import on_terminal
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LABELS, LIST, STRING
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.oneoff import OneOffChanges
    from wherry.compose.project import Project


def run(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.composing.converging import images_of
    from wherry.cli.composing.display import Display
    from wherry.compose import oneoff, state

    if options.many("publish") and options.on("service-ports"):
        raise Failure("--service-ports and --publish are incompatible")
    with ComposeSession(ctx, options) as session:
        name = args[0]
        project = session.project([name])
        changes = _changes(options, project, args[1:])
        shown = Display() if options.on("quiet") else session.display()
        with shown as display:
            report = session.report(display)
            identifier = oneoff.prepare(
                session.sessions,
                project,
                name,
                changes,
                images_of(session, project),
                report,
                dependencies=not options.on("no-deps"),
                dry_run=session.dry_run,
            )
            if options.on("remove-orphans"):
                with session.sessions.lend() as api:
                    for one in state.of_project(api, project.name):
                        if one.service not in project.all_services:
                            containers.remove(api, one.id, force=True)
        if session.dry_run:
            return 0
        if changes.detach:
            containers.start(ctx.api, identifier)
            about = containers.inspect(ctx.api, identifier)
            ctx.line(str(about.get("Name") or identifier).removeprefix("/"))
            return 0
        return _attached(ctx, options, identifier, changes)


def _attached(ctx: Context, options: Options, identifier: str, changes: OneOffChanges) -> int:
    from wherry.cli.terminal.attached import Attachment

    attachment = Attachment(
        ctx,
        identifier,
        stdin=changes.interactive,
        tty=changes.tty,
        detach_keys=ctx.setting("detachKeys"),
        proxy_signals=not changes.tty,
    )
    return attachment.start_and_wait("removed" if changes.auto_remove else "next-exit")


def _changes(options: Options, project: Project, command: list[str]) -> OneOffChanges:
    from wherry.compose import dotenv, oneoff, shorthand

    tty = not options.on("no-TTY") and on_terminal(0) and on_terminal(1) and not options.on("detach")
    interactive = options.on("interactive") and not options.on("detach")
    environment: dict[str, str | None] = {}
    for path in options.many("env-from-file"):
        environment.update(dotenv.read(os.path.abspath(path), project.environment.get))
    for text in options.many("env"):
        name, equals, value = text.partition("=")
        environment[name] = value if equals else project.environment.get(name)
    ports = [port for text in options.many("publish") for port in oneoff.ports_of(text)]
    entrypoint = shorthand.words(options.text("entrypoint")) if options.given("entrypoint") else None
    return oneoff.OneOffChanges(
        command=command or None,
        tty=tty,
        interactive=interactive,
        name=options.text("name"),
        entrypoint=entrypoint,
        environment=environment,
        labels=options.pairs("label"),
        ports=None if options.on("service-ports") and not ports else ports,
        volumes=[oneoff.volume_of(text, os.getcwd()) for text in options.many("volume")],
        cap_add=options.many("cap-add"),
        cap_drop=options.many("cap-drop"),
        user=options.text("user"),
        workdir=options.text("workdir"),
        aliases=options.on("use-aliases"),
        detach=options.on("detach"),
        auto_remove=options.on("rm"),
    )


RUN = Command(
    "[OPTIONS] SERVICE [COMMAND] [ARGS...]",
    run,
    (
        Flag("build", "", BOOL, "Build image before starting container"),
        Flag("cap-add", "", LIST, "Add Linux capabilities"),
        Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
        Flag("detach", "d", BOOL, "Run container in background and print its name"),
        DRY_RUN,
        Flag("entrypoint", "", STRING, "Override the entrypoint of the image"),
        Flag("env", "e", LIST, "Set environment variables"),
        Flag("env-from-file", "", LIST, "Set environment variables from file", complete="file"),
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=True, shown="true"),
        Flag("label", "l", LABELS, "Add or override a label"),
        Flag("name", "", STRING, "Assign a name to the container"),
        Flag("no-TTY", "T", BOOL, "Disable pseudo-TTY allocation; without a terminal there is none anyway"),
        Flag("no-deps", "", BOOL, "Don't start linked services"),
        Flag("publish", "p", LIST, "Publish a container's port(s) to the host"),
        Flag(
            "pull",
            "",
            STRING,
            'Pull image before running ("always"|"missing"|"never")',
            default="policy",
            shown='"policy"',
            complete="always missing never",
        ),
        Flag("quiet", "q", BOOL, "Don't say what is done meanwhile"),
        Flag("quiet-build", "", BOOL, "Suppress progress output from the build process"),
        QUIET_PULL,
        REMOVE_ORPHANS,
        Flag("rm", "", BOOL, "Automatically remove the container when it exits"),
        Flag(
            "service-ports", "P", BOOL, "Run command with all service's ports enabled and mapped to the host"
        ),
        Flag(
            "use-aliases",
            "",
            BOOL,
            "Use the service's network aliases in the network(s) the container connects to",
        ),
        Flag("user", "u", STRING, "Run as specified username or uid"),
        Flag("volume", "v", LIST, "Bind mount a volume"),
        Flag("workdir", "w", STRING, "Working directory inside the container"),
    ),
    least=1,
    most=UNLIMITED,
    interspersed=False,
)
