"""Puts the pages together: Django's settings from the hub's, its tables, and what pages need of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from wherry import threads
from wherry.hub.cli import stores
from wherry.hub.cli.config import HubConfig
from wherry.hub.registry.context import Hub
from wherry.hub.store import site
from wherry.hub.store.objects import Objects
from wherry.hub.store.sql import HubDatabase
from wherry.hub.web.configuring import Oidc, WebConfig, configure
from wherry.hub.worker.rounds import Rounds

if TYPE_CHECKING:
    from wherry.hub.web.bridge import Pages

_LOAD = 30.0
"""Seconds within which a small object must have been read."""
_setting_up = threads.Pool("hub-pages-setup", 1)


async def _configure(config: HubConfig, db: HubDatabase) -> WebConfig:
    values = config.values
    found = WebConfig(
        database=config.database or str(config.root / stores.DATABASE_FILE),
        secret=await db.write(site.session_key),
        url=values.get("url", "").rstrip("/"),
        secure=bool(values.get("tls-cert")) or values.get("url", "").startswith("https://"),
        sign_up=values.get("sign-up", "closed"),
        mail=values.get("mail", ""),
        mail_from=values.get("mail-from", ""),
        admin_factor=values.get("admin-second-factor", True),
        title=values.get("title", "wherry hub"),
        oidc=Oidc(
            values.get("oidc", "").rstrip("/"), values.get("oidc-client", ""), values.get("oidc-secret", ""),
            values.get("oidc-name", ""), values.get("oidc-sign-up", True),
        ),
    )  # fmt: skip
    await _setting_up(configure, found)
    return found


async def migrate(config: HubConfig, db: HubDatabase) -> list[str]:
    """Bring the tables of the pages up to date. :returns: the migrations that were run."""
    await _configure(config, db)
    from wherry.hub.web import migrating

    return await _setting_up(migrating.migrate)


def loader(objects: Objects, loop: asyncio.AbstractEventLoop) -> Callable[[str, int], bytes]:
    """Read small objects from the threads of pages: the store itself belongs to the loop."""

    async def gather(key: str, size: int) -> bytes:
        return b"".join([piece async for piece in objects.read(key, 0, size - 1)])

    def load(key: str, size: int) -> bytes:
        if not size:
            return b""
        return asyncio.run_coroutine_threadsafe(gather(key, size), loop).result(_LOAD)

    return load


async def assemble(config: HubConfig, rounds: Rounds, hub: Hub) -> Pages:
    """:raises Unavailable: the tables of the pages are not up to date (PostgreSQL)."""
    found = await _configure(config, hub.db)
    from django.core.handlers.wsgi import WSGIHandler

    from wherry.hub.web import asking, migrating
    from wherry.hub.web.bridge import Pages

    await _setting_up(migrating.check if config.database else migrating.migrate)
    load = loader(hub.objects, asyncio.get_running_loop())
    asking.surround(
        asking.Surroundings(hub.settings, config.webhook_rules(), load, hub.objects, hub.db.describe())
    )
    rounds.every(3600, "delete expired sessions", lambda: _setting_up(migrating.forget_sessions))
    return Pages(await _setting_up(WSGIHandler), hub.trusted, found.secure)
