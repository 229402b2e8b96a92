"""Run other commands of this client with the arguments for a service."""

from __future__ import annotations

from wherry.cli.grammar.flags import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.command import Command, Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, command: Command, argv: Sequence[str]) -> int:
    """Run the command as if called with ``argv``. :returns: its exit code."""
    options, args = parsed(command, argv)
    return command.run(ctx, options, args)


def parsed(command: Command, argv: Sequence[str]) -> tuple[Options, list[str]]:
    """The flags and the arguments of ``argv``."""
    return parse(command.flags, argv, interspersed=command.interspersed)


def flag(name: str, value: object) -> list[str]:
    """``--name value`` for given values; nothing for empty ones."""
    if value is True:
        return [f"--{name}"]
    return [f"--{name}={value}"] if value not in (None, "", False) else []
