"""``wherry build debug``: build; if a step fails, open a shell in the state before it."""

from __future__ import annotations

from wherry.cli.building.build import build_in
from wherry.cli.command import Failure
from wherry.cli.console import on_terminal, safe
from wherry.client import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def debug(ctx: Context, options: Options, args: list[str]) -> int:
    if len(args) != 1:
        raise Failure("wherry: 'wherry build debug' requires 1 argument: the context")
    kept: dict[str, Any] = {}
    try:
        return build_in(ctx, options, args[0], kept)
    except Failure as failure:
        state = kept.get("Debug")
        if not state:
            raise
        ctx.complain(failure.text)
        ctx.complain(f"\nThe state before this step; what it would run:\n  {safe(str(state['Command']))}\n")
        return _shell(ctx, str(state["Image"]))


def _shell(ctx: Context, image: str) -> int:
    """Run a shell; afterwards remove the image of the state."""
    from wherry.cli.commands.run import RUN
    from wherry.cli.grammar.flags import parse

    words = ["--rm", "--interactive", *(["--tty"] if on_terminal(0) else []), image]
    parsed, arguments = parse(RUN.flags, words, interspersed=RUN.interspersed)
    try:
        return RUN.run(ctx, parsed, arguments)
    finally:
        images.remove(ctx.api, image, force=True)
