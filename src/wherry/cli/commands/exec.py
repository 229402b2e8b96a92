"""``wherry exec``."""

from __future__ import annotations

import sys

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import on_terminal, safe
from wherry.cli.create.body import environment
from wherry.cli.grammar.common import DETACH_KEYS
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, ENV, LIST, STRING
from wherry.client import containers
from wherry.client import exec as execs
from wherry.errors import NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api


def run(ctx: Context, options: Options, args: list[str]) -> int:
    container, command = args[0], args[1:]
    if container in ("ls", "stop", "kill") and not options.any_given and not _exists(ctx, container):
        return _manage(ctx, container, command)
    detach, tty, stdin = options.on("detach"), options.on("tty"), options.on("interactive")
    if tty and stdin and not detach and not on_terminal(0):
        raise Failure("the input device is not a TTY")
    keys = options.text("detach-keys") or ctx.setting("detachKeys")
    body: dict[str, Any] = {
        "User": options.text("user"),
        "Privileged": options.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": keys,
        "Env": environment(options.many("env-file"), options.many("env")),
        "WorkingDir": options.text("workdir"),
        "Cmd": command,
    }
    containers.inspect(ctx.api, container)
    identifier = execs.create(ctx.api, container, body)
    if detach:
        execs.start_detached(ctx.api, identifier, tty=tty)
        return 0
    return _interactive(ctx, identifier, tty=tty, stdin=stdin, keys=keys)


def _exists(ctx: Context, container: str) -> bool:
    """Whether a container with that name exists: then the command is for it, as in Docker."""
    try:
        containers.inspect(ctx.api, container)
    except NotFound:
        return False
    if on_terminal(2):
        note = f"wherry: running in the container named {container}; its execs: wherry container exec-"
        ctx.complain(f"{note}{container}")
    return True


def _manage(ctx: Context, word: str, args: list[str]) -> int:
    """``exec ls|stop|kill CONTAINER``, as ``container exec-ls`` and so on."""
    from wherry.cli.main import dispatch

    return dispatch(ctx, ["container", f"exec-{word}", *args])


def _interactive(ctx: Context, identifier: str, *, tty: bool, stdin: bool, keys: str) -> int:
    from contextlib import ExitStack

    from wherry.cli.terminal import detach, device, interact, signals
    from wherry.client.api import Api

    watch = detach.Watch(detach.parse(keys)) if tty and stdin else None
    with ExitStack() as stack:
        caught = [signals.SIGWINCH, signals.SIGTERM] if tty else []
        pipe = stack.enter_context(signals.SignalPipe(caught))
        sys.stdout.flush()
        control = stack.enter_context(Api(ctx.api.endpoint, version=ctx.api.version))
        size = device.size() if tty else None
        connection = stack.enter_context(execs.start(ctx.api, identifier, tty=tty, console_size=size))
        raw = stack.enter_context(device.RawMode(0)) if tty and stdin and on_terminal(0) else None

        def on_signal(number: int) -> None:
            if number == signals.SIGTERM:
                raise SystemExit(128 + number)
            _resize(control, identifier)

        sink = interact.output(tty)
        session = interact.Interaction(
            connection, sink, stdin=0 if stdin else None, watch=watch, signals=pipe, on_signal=on_signal
        )
        session.run()
        if raw is not None:
            raw.restore()
        if session.detached:
            raise Failure("read escape sequence")
        return _exit_code(control, identifier)


def _resize(api: Api, identifier: str) -> None:
    from wherry.cli.terminal import device

    height, width = device.size()
    if not height or not width:
        return
    try:
        execs.resize(api, identifier, height, width)
    except WherryError:
        pass  # the process has ended, so there is nothing to resize


def _exit_code(api: Api, identifier: str) -> int:
    """The exit code of an exec whose streams have ended.

    :raises Failure: it has none yet: the process closed its streams but still runs.
    """
    code = execs.inspect(api, identifier).get("ExitCode")
    if code is None:
        raise Failure(safe(f"no exit code for exec {identifier}: it still runs"), 125)
    return int(code)


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    run,
    (
        Flag("detach", "d", BOOL, "Detached mode: run command in the background"),
        DETACH_KEYS,
        Flag("env", "e", ENV, "Set environment variables"),
        Flag("env-file", "", LIST, "Read in a file of environment variables", complete="file"),
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached"),
        Flag("privileged", "", BOOL, "Give extended privileges to the command"),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY"),
        Flag("user", "u", STRING, 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
        Flag("workdir", "w", STRING, "Working directory inside the container"),
    ),
    least=2,
    most=UNLIMITED,
    interspersed=False,
    complete="running none",
    description="Run a command in a running container.\n\n"
    "exec ls|stop|kill CONTAINER [EXEC...] shows and ends what was started so; a container that "
    "has one of these names is meant first.",
)
