"""``/system/backup`` (an addition): everything the daemon has, as one stream."""

from __future__ import annotations

from aiohttp import web

from wherry.api.archives import send_archive
from wherry.api.context import RequestContext
from wherry.api.router import Route
from wherry.engine.upkeep.backup import WHOLE, WantedBackup


async def backup(ctx: RequestContext) -> web.StreamResponse:
    """``images`` is ``whole`` or ``reference``; ``volumes`` and ``freeze`` are true by default."""
    wanted = WantedBackup(
        images=ctx.text("images") or WHOLE,
        volumes=ctx.flag("volumes", default=True),
        secrets=ctx.flag("secrets"),
        freeze=ctx.flag("freeze", default=True),
    )
    ctx.engine.upkeep.backup.check(wanted)
    return await send_archive(ctx, lambda file: ctx.engine.upkeep.backup.write(wanted, file))


ROUTES: list[Route] = [("GET", "/system/backup", backup)]
