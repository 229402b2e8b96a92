"""Delivers signed events to webhooks, independently of all other work and with limits of its own.

X-Wherry-Event: manifest.push
X-Wherry-Delivery: 17                         the same for each try
X-Wherry-Timestamp: 1790000000                seconds since the epoch, of this try
X-Wherry-Signature: sha256=<hex>              HMAC-SHA256 of timestamp, ".", body with the webhook's secret
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time

from wherry.hub.core.reach import Rules
from wherry.hub.remote import outside
from wherry.hub.store import webhooks
from wherry.hub.store.sql import HubDatabase
from wherry.hub.store.webhooks import WebhookDelivery

_AT_ONCE = 8


def body_of(one: WebhookDelivery) -> bytes:
    return json.dumps(
        {
            "delivery": one.id,
            "event": one.event,
            "at": one.at,
            "action": one.action,
            "repository": one.repository,
            "actor": one.actor,
            "detail": json.loads(one.detail) if one.detail else {},
        }
    ).encode()


def sign(secret: str, timestamp: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


class Deliveries:
    def __init__(self, db: HubDatabase, rules: Rules) -> None:
        self._db, self._rules = db, rules

    async def run(self) -> int:
        """Make the due deliveries. :returns: their number."""
        made = 0
        while taken := await self._db.write(lambda tx: webhooks.take(tx, _AT_ONCE)):
            await asyncio.gather(*(self._make(one) for one in taken))
            made += len(taken)
        return made

    async def _make(self, one: WebhookDelivery) -> None:
        body, timestamp = body_of(one), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "wherry-hub",
            "X-Wherry-Event": one.action,
            "X-Wherry-Delivery": str(one.id),
            "X-Wherry-Timestamp": timestamp,
            "X-Wherry-Signature": sign(one.secret, timestamp, body),
        }
        status, answer = await outside.post(self._rules, one.url, body, headers)
        await self._db.write(lambda tx: webhooks.told(tx, one, status, answer.replace("\0", "")))
