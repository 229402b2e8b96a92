"""Rows of webhooks and of their deliveries (the outbox). An event and its deliveries are written in one
transaction, so every committed event is delivered, and no other."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from wherry.errors import NotFound
from wherry.hub.core import globs, names
from wherry.hub.store.sql import Tx, now

TRIES_MAX = 8
_LEASE = 120
"""Seconds after which a worker's lease on a delivery expires and another worker takes it."""


@dataclass(frozen=True)
class Webhook:
    id: int
    repository: str
    events: tuple[str, ...]
    url: str


def add(tx: Tx, repository: str, events: tuple[str, ...], url: str) -> tuple[int, str]:
    """Create a webhook. :returns: its id and its secret."""
    secret = secrets.token_urlsafe(32)
    for pattern in (repository, *events):
        globs.check(pattern)
    row = tx.one(
        "INSERT INTO webhook (repository, events, url, secret, created) VALUES (?, ?, ?, ?, ?) RETURNING id",
        repository, " ".join(events), url, secret, now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0]), secret


def all_of(tx: Tx) -> list[Webhook]:
    rows = tx.all("SELECT id, repository, events, url FROM webhook ORDER BY id")
    return [Webhook(int(row[0]), row[1], tuple(row[2].split()), row[3]) for row in rows]


def remove(tx: Tx, webhook: int) -> None:
    """:raises NotFound:"""
    if not tx.run("DELETE FROM webhook WHERE id = ?", webhook):
        raise NotFound(f"no such webhook: {webhook}")


def tell(tx: Tx, event: int, action: str, repository: str) -> None:
    """Add the deliveries of an event."""
    if not repository:
        return
    for hook in all_of(tx):
        wanted = any(globs.matches(pattern, action) for pattern in hook.events)
        if wanted and globs.matches(hook.repository, repository):
            tx.run(
                "INSERT INTO delivery (webhook_id, event_id, state, next_at) VALUES (?, ?, 'due', ?)",
                hook.id, event, now(),
            )  # fmt: skip


def test(tx: Tx, webhook: int, actor: str, address: str, repository: str) -> None:
    """Send an event of kind ``webhook.test`` to one webhook only."""
    row = tx.one(
        "INSERT INTO event (at, actor, address, action, namespace, repository, detail)"
        " VALUES (?, ?, ?, 'webhook.test', ?, ?, '') RETURNING id",
        now(), actor, address, names.namespace_of(repository), repository,
    )  # fmt: skip
    assert row is not None
    tx.run(
        "INSERT INTO delivery (webhook_id, event_id, state, next_at) VALUES (?, ?, 'due', ?)",
        webhook, row[0], now(),
    )  # fmt: skip


@dataclass(frozen=True)
class WebhookDelivery:
    id: int
    url: str
    secret: str
    tries: int
    event: int
    at: int
    actor: str
    action: str
    repository: str
    detail: str


def take(tx: Tx, count: int) -> list[WebhookDelivery]:
    """Take a lease of two minutes on due deliveries."""
    rows = tx.all(
        "SELECT id, webhook_id, event_id, tries FROM delivery WHERE state = 'due' AND next_at <= ?"
        " ORDER BY next_at, id LIMIT ? /*locked*/",
        now(), count,
    )  # fmt: skip
    found: list[WebhookDelivery] = []
    for number, hook, event, tries in rows:
        tx.run("UPDATE delivery SET next_at = ? WHERE id = ?", now() + _LEASE, number)
        row = tx.one(
            "SELECT w.url, w.secret, e.at, e.actor, e.action, e.repository, e.detail FROM webhook w, event e"
            " WHERE w.id = ? AND e.id = ?",
            hook, event,
        )  # fmt: skip
        assert row is not None
        found.append(
            WebhookDelivery(int(number), row[0], row[1], int(tries), int(event), int(row[2]), *row[3:])
        )
    return found


def told(tx: Tx, delivery: WebhookDelivery, status: int, answer: str) -> None:
    """Record the result of an attempt. A failed delivery is repeated after increasing delays, at most
    eight times in total."""
    tries = delivery.tries + 1
    if 200 <= status < 300:
        state, later = "done", 0
    else:
        state, later = ("dead" if tries >= TRIES_MAX else "due"), min(6 * 3600, 10 * 4**delivery.tries)
    tx.run(
        "UPDATE delivery SET state = ?, tries = ?, next_at = ?, told = ?, status = ?, answer = ?"
        " WHERE id = ?",
        state, tries, now() + later, now(), status, answer, delivery.id,
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A delivery in the operator's list."""

    id: int
    event: int
    action: str
    repository: str
    state: str
    tries: int
    told: int | None
    status: int | None
    answer: str


def history(tx: Tx, webhook: int, count: int = 50) -> list[Told]:
    """Deliveries of a webhook, newest first. :raises NotFound: no such webhook."""
    if tx.one("SELECT 1 FROM webhook WHERE id = ?", webhook) is None:
        raise NotFound(f"no such webhook: {webhook}")
    rows = tx.all(
        "SELECT d.id, d.event_id, e.action, e.repository, d.state, d.tries, d.told, d.status, d.answer"
        " FROM delivery d JOIN event e ON e.id = d.event_id WHERE d.webhook_id = ?"
        " ORDER BY d.id DESC LIMIT ?",
        webhook, count,
    )  # fmt: skip
    return [Told(*row) for row in rows]


def again(tx: Tx, delivery: int) -> None:
    """Repeat a delivery, whatever its result. :raises NotFound:"""
    if not tx.run("UPDATE delivery SET state = 'due', tries = 0, next_at = ? WHERE id = ?", now(), delivery):
        raise NotFound(f"no such delivery: {delivery}")
