"""Retention: delete tags according to rules. These deletions can be undone like any other."""

from __future__ import annotations

import logging

from wherry.hub.core.refusals import Refusal
from wherry.hub.store import events, rules, tags
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx

log = logging.getLogger(__name__)
ACTOR, EXPIRY = "(retention)", "(expiry)"


async def run(db: HubDatabase, settings: HubSettings) -> int:
    """Delete due tags. :returns: their number. Tags that have changed since they were listed
    are left to the next run."""
    gone = 0
    for one in await db.scan(rules.leaving):
        gone += await db.write(lambda tx, o=one: _delete(tx, o, settings))  # type: ignore[misc]
    if gone:
        log.info("retention deleted %d tags", gone)
    return gone


def _delete(tx: Tx, one: rules.Leaving, settings: HubSettings) -> bool:
    try:
        if not tags.delete_if(tx, one.repository, one.tag, one.digest, ACTOR, settings, "retention"):
            return False
    except Refusal:
        return False  # its repository was deleted, or a rule protects it now
    events.note(
        tx, ACTOR, "", "tag.delete", one.repository, reference=one.tag, digest=one.digest, rule=one.rule
    )
    return True


async def expire(db: HubDatabase, settings: HubSettings) -> int:
    """Delete the expired tags. :returns: their number."""
    gone = 0
    for name, tag, digest in await db.scan(lambda tx: tags.expired(tx, 1000)):
        gone += await db.write(lambda tx, n=name, t=tag, d=digest: _expire(tx, n, t, d, settings))  # type: ignore[misc]
    return gone


def _expire(tx: Tx, name: str, tag: str, digest: str, settings: HubSettings) -> bool:
    try:
        if not tags.delete_if(tx, name, tag, digest, EXPIRY, settings, "expiry"):
            return False
    except Refusal:
        tags.expire(tx, name, tag, None)  # a rule protects it now
        return False
    events.note(tx, EXPIRY, "", "tag.delete", name, reference=tag, digest=digest)
    return True
