"""The commands that change containers' state: stop, restart, kill, rm, pause, unpause, rename, wait."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure, each
from wherry.cli.console import indented
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, STRING
from wherry.client import containers
from wherry.errors import Internal, InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api

SIGNAL = Flag("signal", "s", STRING, "Signal to send to the container")
TIMEOUT = Flag("timeout", "t", INT, "Seconds to wait before killing the container")
TIME = Flag(
    "time", "", INT, "Seconds to wait before killing the container (old name of --timeout)", hidden=True
)


def _timeout(options: Options) -> int | None:
    if options.given("timeout") and options.given("time"):
        raise InvalidArgument("conflicting options: cannot specify both --timeout and --time")
    for name in ("timeout", "time"):
        if options.given(name):
            return options.number(name)
    return None


def stop(ctx: Context, options: Options, args: list[str]) -> int:
    timeout, signal = _timeout(options), options.text("signal")

    def one(name: str) -> str:
        containers.stop(ctx.api, name, signal=signal, timeout=timeout)
        return name

    return each(ctx, args, one)


def restart(ctx: Context, options: Options, args: list[str]) -> int:
    timeout, signal = _timeout(options), options.text("signal")

    def one(name: str) -> str:
        containers.restart(ctx.api, name, signal=signal, timeout=timeout)
        return name

    return each(ctx, args, one)


def kill(ctx: Context, options: Options, args: list[str]) -> int:
    def one(name: str) -> str:
        containers.kill(ctx.api, name, options.text("signal"))
        return name

    return each(ctx, args, one)


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    force = options.on("force")

    def one(name: str) -> str | None:
        name = name.strip("/")
        if not name:
            raise InvalidArgument("container name cannot be empty")
        try:
            containers.remove(
                ctx.api, name, force=force, volumes=options.on("volumes"), link=options.on("link")
            )
        except NotFound as e:
            if not force:
                raise
            ctx.complain(indented(e.message))
            return None
        return name

    return each(ctx, args, one)


def _simple(action: Callable[[Api, str], None]) -> Callable[[Context, Options, list[str]], int]:
    def run(ctx: Context, options: Options, args: list[str]) -> int:
        def one(name: str) -> str:
            action(ctx.api, name)
            return name

        return each(ctx, args, one)

    return run


def rename(ctx: Context, options: Options, args: list[str]) -> int:
    old, new = (arg.strip() for arg in args)
    if not old or not new:
        raise InvalidArgument("Error: Neither old nor new names may be empty")
    try:
        containers.rename(ctx.api, old, new)
    except WherryError as e:
        raise Failure(f"{indented(e.message)}\nError: failed to rename container named {old}") from e
    return 0


def wait(ctx: Context, options: Options, args: list[str]) -> int:
    def one(name: str) -> str:
        code, problem = containers.exit_status(containers.wait(ctx.api, name).read_all())
        if problem:
            raise Internal(problem)
        return str(code)

    return each(ctx, args, one)


_RUNNING = "CONTAINER [CONTAINER...]"
STOP = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    stop,
    (SIGNAL, TIMEOUT, TIME),
    least=1,
    most=UNLIMITED,
    complete="running",
)
RESTART = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    restart,
    (SIGNAL, TIMEOUT, TIME),
    least=1,
    most=UNLIMITED,
    complete="container",
)
KILL = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]", kill, (SIGNAL,), least=1, most=UNLIMITED, complete="running"
)
RM = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    remove,
    (
        Flag("force", "f", BOOL, "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", BOOL, "Remove the specified link"),
        Flag("volumes", "v", BOOL, "Remove anonymous volumes associated with the container"),
    ),
    least=1,
    most=UNLIMITED,
    complete="container",
)
PAUSE = Command(_RUNNING, _simple(containers.pause), least=1, most=UNLIMITED, complete="running")
UNPAUSE = Command(_RUNNING, _simple(containers.unpause), least=1, most=UNLIMITED, complete="container")
RENAME = Command("CONTAINER NEW_NAME", rename, least=2, most=2, complete="container none")
WAIT = Command(_RUNNING, wait, least=1, most=UNLIMITED, complete="container")
