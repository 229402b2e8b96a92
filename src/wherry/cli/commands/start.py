"""``wherry start``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure, each
from wherry.cli.console import on_terminal
from wherry.cli.grammar.common import DETACH_KEYS
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    if options.on("attach") or options.on("interactive"):
        if len(args) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _attached(ctx, options, args[0])

    def one(name: str) -> str:
        containers.start(ctx.api, name)
        return name

    code = each(ctx, args, one)
    if code:
        ctx.complain("failed to start containers: " + ", ".join(args))
    return code


def _attached(ctx: Context, options: Options, name: str) -> int:
    from wherry.cli.terminal.attached import Attachment

    container = containers.inspect(ctx.api, name)
    config = container.get("Config") or {}
    host = container.get("HostConfig") or {}
    tty = bool(config.get("Tty"))
    stdin = options.on("interactive") and bool(config.get("OpenStdin"))
    if tty and stdin and not on_terminal(0):
        raise Failure("the input device is not a TTY")
    attachment = Attachment(
        ctx,
        container["Id"],
        stdin=stdin,
        tty=tty,
        detach_keys=options.text("detach-keys") or ctx.setting("detachKeys"),
        proxy_signals=not tty,
    )
    return attachment.start_and_wait("removed" if host.get("AutoRemove") else "next-exit")


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    run,
    (
        Flag("attach", "a", BOOL, "Attach STDOUT/STDERR and forward signals"),
        DETACH_KEYS,
        Flag("interactive", "i", BOOL, "Attach container's STDIN"),
    ),
    least=1,
    most=UNLIMITED,
    complete="container",
)
