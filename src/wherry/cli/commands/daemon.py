"""``wherry daemon start|stop|status|logs``: control the daemon of this machine without systemd."""

from __future__ import annotations

import os

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.daemons import local
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import INT, LIST, STRING
from wherry.client.endpoint import DaemonEndpoint
from wherry.client.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

NOT_RUNNING = 3
"""Exit code of ``status`` for a stopped service (LSB, "Init Script Actions")."""

RUN_FLAG = Flag(
    "run",
    "",
    STRING,
    "Directory of sockets and pid files",
    default=local.RUN,
    shown=f'"{local.RUN}"',
)


def _run_dir(options: Options) -> str:
    return os.path.abspath(options.text("run"))


def _hosts(ctx: Context, options: Options) -> list[str]:
    given = options.many("host")
    return given or ([ctx.wanted.host] if ctx.wanted.host else [])


def start(ctx: Context, options: Options, args: list[str]) -> int:
    run = _run_dir(options)
    hosts = _hosts(ctx, options)
    found = local.find(run)
    if found is not None:
        found.close()
        ctx.say(f"wherryd is running already (pid {found.pid})")
        return 0
    arguments = ["--run", run]
    if options.text("root"):
        arguments += ["--root", os.path.abspath(options.text("root"))]
    for host in hosts:
        arguments += ["--host", host]
    endpoint = DaemonEndpoint(hosts[0] if hosts else local.default_host(run))
    if local.look(endpoint) != local.AWAY:
        raise Failure(f"cannot start the daemon: {_other(endpoint.host)}")
    pid = local.start(run, [*arguments, *args], endpoint)
    ctx.say(f"wherryd started (pid {pid}), listening at {endpoint.host}")
    return 0


def stop(ctx: Context, options: Options, args: list[str]) -> int:
    found = local.find(_run_dir(options))
    if found is None:
        host = ctx.wanted.host or local.default_host(_run_dir(options))
        if local.look(DaemonEndpoint(host)) != local.AWAY:
            raise Failure(
                f"cannot stop the daemon: {_other(host)}; only the program that started it can stop it"
            )
        ctx.say("wherryd is not running")
        return 0
    try:
        found.stop()
    finally:
        found.close()
    ctx.say("wherryd stopped; containers keep running")
    return 0


def status(ctx: Context, options: Options, args: list[str]) -> int:
    run = _run_dir(options)
    host = ctx.wanted.host or local.default_host(run)
    seen = local.look(DaemonEndpoint(host))
    found = local.find(run)
    if found is not None:
        found.close()
        states = {
            local.ANSWERS: f"answering at {host}",
            local.DENIED: f"listening at {host}, where you may not connect",
            local.AWAY: f"not answering at {host}",
        }
        ctx.say(f"wherryd is running (pid {found.pid}), {states[seen]}")
        return 1 if seen == local.AWAY else 0
    if seen != local.AWAY:
        ctx.say(_other(host) + (", where you may not connect" if seen == local.DENIED else ""))
        return 0
    ctx.say("wherryd is not running")
    return NOT_RUNNING


def _other(host: str) -> str:
    return f"a daemon that was not started by 'wherry daemon start' answers at {host}"


def logs(ctx: Context, options: Options, args: list[str]) -> int:
    path = f"{_run_dir(options)}/wherryd.log"
    try:
        text = read_file(path).decode("utf-8", "replace")
    except OSError as e:
        raise Failure(f"cannot read the daemon's log: open {path}: {(e.strerror or '').lower()}") from e
    lines = text.splitlines()
    count = options.number("tail")
    for line in lines[-count:] if count > 0 else [] if count == 0 else lines:
        ctx.say(line)
    return 0


START = Command(
    "[OPTIONS] [-- WHERRYD OPTIONS...]",
    start,
    (
        Flag("host", "", LIST, "Socket to listen at; may be repeated"),
        Flag("root", "", STRING, "Directory of images, volumes and containers"),
        RUN_FLAG,
    ),
    most=UNLIMITED,
)
STOP = Command("[OPTIONS]", stop, (RUN_FLAG,))
STATUS = Command("[OPTIONS]", status, (RUN_FLAG,))
LOGS = Command(
    "[OPTIONS]",
    logs,
    (RUN_FLAG, Flag("tail", "n", INT, "Number of lines to show from the end", default=-1, shown="all")),
)
