"""Read the platforms of new images from their configurations, for lists and filters; sum up pulls."""

from __future__ import annotations

import json
import logging

from wherry.hub.store import facts, insights
from wherry.hub.store.facts import Unread
from wherry.hub.store.objects import Full, ObjectLost, Objects
from wherry.hub.store.sql import HubDatabase, Tx

log = logging.getLogger(__name__)
_BATCH = 100
_KEPT_DAYS = 400
"""Pulls by day are kept a little longer than a year."""


class ImageFacts:
    """Remembers how far it has read: each image is looked at once."""

    def __init__(self, db: HubDatabase, objects: Objects) -> None:
        self._db, self._objects = db, objects
        self._after = 0

    async def run(self) -> int:
        """Look at the images pushed since the last run. :returns: their number."""
        seen = 0
        while found := await self._db.scan(lambda tx: facts.unread(tx, self._after, _BATCH)):
            known = [(one, await self._platform(one)) for one in found]

            def write(tx: Tx, known: list[tuple[Unread, tuple[str, str, str]]] = known) -> None:
                for one, platform in known:
                    facts.note(tx, one.manifest, *platform)
                for repository in sorted({one.repository for one, _ in known}):
                    facts.refresh(tx, repository)

            await self._db.write(write)
            self._after = found[-1].manifest
            seen += len(found)
        return seen

    async def _platform(self, one: Unread) -> tuple[str, str, str]:
        if not one.key:
            return "", "", ""
        try:
            data = b"".join([piece async for piece in self._objects.read(one.key, 0, one.size - 1)])
            document = json.loads(data)
        except (ObjectLost, Full, ValueError, RecursionError) as e:
            log.debug("cannot read the configuration of manifest %d: %s", one.manifest, e)
            return "", "", ""
        if not isinstance(document, dict):
            return "", "", ""
        words = [document.get(name) for name in ("os", "architecture", "variant")]
        first, second, third = (word if isinstance(word, str) and word.isascii() else "" for word in words)
        return first, second, third


async def sum_up(db: HubDatabase) -> None:
    """Refresh the pulls of the last seven days of all repositories, and forget old days."""
    await db.write(insights.refresh_recent)
    await db.write(lambda tx: insights.forget(tx, _KEPT_DAYS))
