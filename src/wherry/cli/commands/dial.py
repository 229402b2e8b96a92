"""``wherry system dial-stdio``: a raw connection to the daemon on stdin and stdout, for ssh."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.terminal.interact import Interaction
from wherry.client.api import Hijacked
from wherry.client.files import write_all
from wherry.client.streams import Raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    with Hijacked(ctx.api.dial(), b"") as connection:
        Interaction(connection, Raw(lambda piece: write_all(1, piece)), stdin=0).run()
    return 0


DIAL = Command(
    "",
    run,
    description="Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
)
