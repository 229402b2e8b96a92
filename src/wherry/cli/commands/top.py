"""``wherry top``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, safe
from wherry.cli.render.table import align
from wherry.client import containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.flags import Options


COLUMN_MIN = 20


def run(ctx: Context, options: Options, args: list[str]) -> int:
    answer = containers.top(ctx.api, args[0], " ".join(args[1:]))
    rows = [answer.get("Titles") or [], *(answer.get("Processes") or [])]
    lines = ("\t".join(safe(str(cell)).replace("\n", " ") for cell in row) for row in rows)
    ctx.write(align(lines, COLUMN_MIN))
    return 0


TOP = Command(
    "CONTAINER [ps OPTIONS]", run, least=1, most=UNLIMITED, interspersed=False, complete="running none"
)
