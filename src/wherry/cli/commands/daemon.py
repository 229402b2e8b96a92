"""``wherry daemon start|stop|status|logs``: the daemon of this machine, without systemd."""

from __future__ import annotations

import os

from wherry.cli import localdaemon
from wherry.cli.command import UNLIMITED, Command, Failure, safe
from wherry.cli.flags import Flag
from wherry.cli.values import INT, LIST, STRING
from wherry.client.files import read_file
from wherry.client.transport import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.flags import Options

NOT_RUNNING = 3
"""Exit code of ``status`` for a stopped service (LSB, "Init Script Actions")."""

RUN_FLAG = Flag(
    "run",
    "",
    STRING,
    "Directory of sockets and pid files",
    default=localdaemon.RUN,
    shown=f'"{localdaemon.RUN}"',
)


def _run_dir(options: Options) -> str:
    return os.path.abspath(options.text("run"))


def _hosts(ctx: Context, options: Options) -> list[str]:
    given = options.many("host")
    return given or ([ctx.wanted.host] if ctx.wanted.host else [])


def start(ctx: Context, options: Options, args: list[str]) -> int:
    run = _run_dir(options)
    hosts = _hosts(ctx, options)
    found = localdaemon.find(run)
    if found is not None:
        found.close()
        ctx.say(f"wherryd is running already (pid {found.pid})")
        return 0
    arguments = ["--run", run]
    if options.text("root"):
        arguments += ["--root", os.path.abspath(options.text("root"))]
    for host in hosts:
        arguments += ["--host", host]
    endpoint = Endpoint(hosts[0] if hosts else localdaemon.default_host(run))
    pid = localdaemon.start(run, [*arguments, *args], endpoint)
    ctx.say(f"wherryd started (pid {pid}), listening at {endpoint.host}")
    return 0


def stop(ctx: Context, options: Options, args: list[str]) -> int:
    found = localdaemon.find(_run_dir(options))
    if found is None:
        ctx.say("wherryd is not running")
        return 0
    try:
        found.stop()
    finally:
        found.close()
    ctx.say("wherryd stopped; containers go on running")
    return 0


def status(ctx: Context, options: Options, args: list[str]) -> int:
    run = _run_dir(options)
    host = ctx.wanted.host or localdaemon.default_host(run)
    answering = localdaemon.answers(Endpoint(host))
    found = localdaemon.find(run)
    if found is not None:
        found.close()
        state = f"answering at {host}" if answering else f"not answering at {host}"
        ctx.say(f"wherryd is running (pid {found.pid}), {state}")
        return 0 if answering else 1
    if answering:
        ctx.say(f"a daemon that was not started by 'wherry daemon start' answers at {host}")
        return 0
    ctx.say("wherryd is not running")
    return NOT_RUNNING


def logs(ctx: Context, options: Options, args: list[str]) -> int:
    path = f"{_run_dir(options)}/wherryd.log"
    try:
        text = read_file(path).decode("utf-8", "replace")
    except OSError as e:
        raise Failure(f"cannot read the daemon's log: open {path}: {(e.strerror or '').lower()}") from e
    lines = text.splitlines()
    count = options.number("tail")
    for line in lines[-count:] if count > 0 else [] if count == 0 else lines:
        ctx.say(safe(line))
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
