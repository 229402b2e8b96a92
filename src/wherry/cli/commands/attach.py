"""``wherry attach``."""

from __future__ import annotations

from wherry.cli.command import Command, Failure
from wherry.cli.console import on_terminal
from wherry.cli.grammar.common import DETACH_KEYS
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.cli.terminal.attached import Attachment
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    container = containers.inspect(ctx.api, args[0])
    check_running(container.get("State") or {})
    config: dict[str, Any] = container.get("Config") or {}
    tty, stdin = bool(config.get("Tty")), bool(config.get("OpenStdin")) and not options.on("no-stdin")
    if tty and stdin and not on_terminal(0):
        raise Failure("the input device is not a TTY")
    waiting = containers.wait(ctx.api, container["Id"])
    attachment = Attachment(
        ctx,
        container["Id"],
        stdin=stdin,
        tty=tty,
        detach_keys=options.text("detach-keys") or ctx.setting("detachKeys"),
        proxy_signals=options.on("sig-proxy") and not tty,
    )
    return attachment.join(waiting)


def check_running(state: dict[str, Any]) -> None:
    """:raises Failure: the container cannot be attached to."""
    if not state.get("Running"):
        raise Failure("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failure("You cannot attach to a restarting container, wait until it is running")


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    run,
    (
        DETACH_KEYS,
        Flag("no-stdin", "", BOOL, "Do not attach STDIN"),
        Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", default=True, shown="true"),
    ),
    least=1,
    most=1,
    complete="running none",
)
