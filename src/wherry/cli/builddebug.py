"""``wherry build debug``: build, and where a step fails, open a shell in the state before it."""

from __future__ import annotations

from wherry.cli.command import Failure, safe
from wherry.client import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.flags import Options


def debug(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands import build as command

    if len(args) != 1:
        raise Failure("wherry: 'wherry build debug' requires 1 argument: the context")
    kept: dict[str, Any] = {}
    try:
        return command.build_in(ctx, options, args[0], kept)
    except Failure as failure:
        state = kept.get("Debug")
        if not state:
            raise
        ctx.complain(failure.text)
        ctx.complain(f"\nThe state before this step; what it would run:\n  {safe(str(state['Command']))}\n")
        return _shell(ctx, str(state["Image"]))


def _shell(ctx: Context, image: str) -> int:
    """Run a shell; the state's image goes with it."""
    from wherry.cli.commands.run import RUN
    from wherry.cli.flags import parse
    from wherry.cli.shared import on_terminal

    words = ["--rm", "--interactive", *(["--tty"] if on_terminal(0) else []), image]
    parsed, arguments = parse(RUN.flags, words, interspersed=RUN.interspersed)
    try:
        return RUN.run(ctx, parsed, arguments)
    finally:
        images.remove(ctx.api, image, force=True)
