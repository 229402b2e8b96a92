"""``wherry compose exec|cp|attach|commit|export|top|stats|port``: the commands of containers, by service."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing import delegate
from wherry.cli.composing.flags import DRY_RUN, INDEX
from wherry.cli.composing.session import ComposeSession
from wherry.cli.console import on_terminal, one_line
from wherry.cli.grammar.common import DETACH_KEYS, FORMAT_TABLE, NO_TRUNC
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LIST, STRING
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.state import ProjectContainer


def _chosen(
    ctx: Context, options: Options, service: str, *, runs: bool = True
) -> tuple[ComposeSession, ProjectContainer]:
    with ComposeSession(ctx, options) as session:
        return session, session.one_container(service, options.number("index"), runs=runs)


def _dry(session: ComposeSession, container: ProjectContainer, what: str) -> bool:
    if session.dry_run:
        ctx = session.ctx
        ctx.complain(f"DRY-RUN MODE -  Container {container.name}  {what}")
    return session.dry_run


def exec_(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.exec import EXEC

    session, container = _chosen(ctx, options, args[0])
    if _dry(session, container, "Exec"):
        return 0
    detach = options.on("detach")
    tty = on_terminal(0) and on_terminal(1) and not options.on("no-tty") and not detach
    argv = [f"--env={text}" for text in options.many("env")]
    for name, value in (
        ("detach", detach),
        ("privileged", options.on("privileged")),
        ("user", options.text("user")),
        ("workdir", options.text("workdir")),
        ("tty", tty),
        ("interactive", options.on("interactive") and not detach),
    ):
        argv += delegate.flag(name, value)
    return delegate.run(ctx, EXEC, [*argv, container.id, *args[1:]])


def cp(ctx: Context, options: Options, args: list[str]) -> int:
    """Copy to each container of the service, or from its first one."""
    from wherry.cli.commands.cp import CP, split_argument

    services = [split_argument(text) for text in args]
    if bool(services[0][0]) == bool(services[1][0]):
        text = "copying between services is not supported" if services[0][0] else "unknown copy direction"
        raise Failure(text)
    to_service = bool(services[1][0])
    service, inside = services[1] if to_service else services[0]
    session = ComposeSession(ctx, options)
    found = session.containers([service], oneoff=None if options.on("all") else False)
    index = options.number("index")
    if index:
        found = [one for one in found if one.number == index]
    if not found:
        raise Failure(f'no container found for service "{service}"')
    if not to_service or (not options.on("all") and not index):
        found = found if to_service else found[:1]
    argv = [
        *delegate.flag("archive", options.on("archive")),
        *delegate.flag("follow-link", options.on("follow-link")),
    ]
    code = 0
    for container in found:
        if _dry(session, container, "Copy"):
            continue
        place = f"{container.id}:{inside}"
        code = max(
            code, delegate.run(ctx, CP, [*argv, *([args[0], place] if to_service else [place, args[1]])])
        )
    return code


def attach(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.attach import ATTACH

    session, container = _chosen(ctx, options, args[0])
    if _dry(session, container, "Attach"):
        return 0
    argv = [
        *delegate.flag("detach-keys", options.text("detach-keys")),
        *delegate.flag("no-stdin", options.on("no-stdin")),
    ]
    argv.append(f"--sig-proxy={str(options.on('sig-proxy')).lower()}")
    return delegate.run(ctx, ATTACH, [*argv, container.id])


def commit(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.commit import COMMIT

    session, container = _chosen(ctx, options, args[0], runs=False)
    if _dry(session, container, "Commit"):
        return 0
    argv = [f"--change={text}" for text in options.many("change")]
    argv += [
        *delegate.flag("author", options.text("author")),
        *delegate.flag("message", options.text("message")),
    ]
    argv.append(f"--pause={str(options.on('pause')).lower()}")
    return delegate.run(ctx, COMMIT, [*argv, container.id, *args[1:]])


def export(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.diff import EXPORT

    session, container = _chosen(ctx, options, args[0], runs=False)
    if _dry(session, container, "Export"):
        return 0
    return delegate.run(ctx, EXPORT, [*delegate.flag("output", options.text("output")), container.id])


def top(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.errors import WherryError

    session = ComposeSession(ctx, options)
    titles: list[str] = []
    rows: list[list[str]] = []
    for container in session.containers(args, all=False):
        try:
            answer = containers.top(ctx.api, container.id)
        except WherryError:
            continue  # it ended meanwhile
        titles = titles or [str(one) for one in answer.get("Titles") or ()]
        rows += [
            [container.service, str(container.number), *(str(cell) for cell in process)]
            for process in answer.get("Processes") or ()
        ]
    if rows:
        lines = [["SERVICE", "#", *titles], *rows]
        widths = [max(4, *(len(line[n]) + 2 for line in lines)) for n in range(len(lines[0]))]
        for line in lines:
            cells = [one_line(cell) for cell in line]
            ctx.line("".join(f"{c:<{w}}" for c, w in zip(cells[:-1], widths, strict=False)) + cells[-1])
    return 0


def stats(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.stats import STATS

    session = ComposeSession(ctx, options)
    found = session.containers(args, all=options.on("all"))
    if not found:
        return 0
    argv: list[str] = []
    for name in ("all", "no-stream", "no-trunc"):
        argv += delegate.flag(name, options.on(name))
    argv += delegate.flag("format", options.text("format"))
    return delegate.run(ctx, STATS, [*argv, *(one.name for one in found)])


def port(ctx: Context, options: Options, args: list[str]) -> int:
    service, number = args
    if not number.isdecimal():
        raise Failure(f'strconv.ParseUint: parsing "{number}": invalid syntax')
    protocol = options.text("protocol").lower()
    container = _chosen(ctx, options, service, runs=False)[1]
    ports = container.about.get("Ports") or []
    for one in ports:
        if one.get("PrivatePort") == int(number) and one.get("Type") == protocol and one.get("PublicPort"):
            ctx.line(f"{one.get('IP') or '0.0.0.0'}:{one['PublicPort']}")
            return 0
    others = ", ".join(f"{one.get('PublicPort') or ''}:{one['PrivatePort']}/{one['Type']}" for one in ports)
    raise Failure(
        f"no port {number}/{protocol} for container {container.name}" + (f": {others}" if others else "")
    )


EXEC = Command(
    "[OPTIONS] SERVICE COMMAND [ARGS...]",
    exec_,
    (
        Flag("detach", "d", BOOL, "Detached mode: Run command in the background"),
        DRY_RUN,
        Flag("env", "e", LIST, "Set environment variables"),
        INDEX,
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=True, hidden=True),
        Flag("no-tty", "T", BOOL, "Disable pseudo-TTY allocation; without a terminal there is none anyway"),
        Flag("privileged", "", BOOL, "Give extended privileges to the process"),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY", default=True, hidden=True),
        Flag("user", "u", STRING, "Run the command as this user"),
        Flag("workdir", "w", STRING, "Path to workdir directory for this command"),
    ),
    least=2,
    most=UNLIMITED,
    interspersed=False,
)
CP = Command(
    "[OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\n        wherry compose cp [OPTIONS] SRC_PATH|- "
    "SERVICE:DEST_PATH",
    cp,
    (
        Flag("all", "", BOOL, "Include containers created by the run command"),
        Flag("archive", "a", BOOL, "Archive mode (copy all uid/gid information)"),
        DRY_RUN,
        Flag("follow-link", "L", BOOL, "Always follow symbol link in SRC_PATH"),
        INDEX,
    ),
    least=2,
    most=2,
    complete="file",
)
ATTACH = Command(
    "[OPTIONS] SERVICE",
    attach,
    (
        DETACH_KEYS,
        DRY_RUN,
        INDEX,
        Flag("no-stdin", "", BOOL, "Do not attach STDIN"),
        Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", default=True, shown="true"),
    ),
    least=1,
    most=1,
)
COMMIT = Command(
    "[OPTIONS] SERVICE [REPOSITORY[:TAG]]",
    commit,
    (
        Flag("author", "a", STRING, 'Author (e.g., "Ada Lovelace <ada@example.org>")'),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        DRY_RUN,
        INDEX,
        Flag("message", "m", STRING, "Commit message"),
        Flag("pause", "p", BOOL, "Pause container during commit", default=True, shown="true"),
    ),
    least=1,
    most=2,
)
EXPORT = Command(
    "[OPTIONS] SERVICE",
    export,
    (DRY_RUN, INDEX, Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file")),
    least=1,
    most=1,
)
TOP = Command("[SERVICES...]", top, (DRY_RUN,), most=UNLIMITED)
STATS = Command(
    "[OPTIONS] [SERVICE]",
    stats,
    (
        Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
        DRY_RUN,
        FORMAT_TABLE,
        Flag("no-stream", "", BOOL, "Disable streaming stats and only pull the first result"),
        NO_TRUNC,
    ),
    most=1,
)
PORT = Command(
    "[OPTIONS] SERVICE PRIVATE_PORT",
    port,
    (
        DRY_RUN,
        INDEX,
        Flag("protocol", "", STRING, "tcp or udp", default="tcp", shown='"tcp"', complete="tcp udp sctp"),
    ),
    least=2,
    most=2,
)
