"""Rows of events, for audits and webhooks. Rows are never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wherry.hub.core import names
from wherry.hub.store import webhooks
from wherry.hub.store.sql import Tx, now


def note(tx: Tx, actor: str, address: str, action: str, repository: str = "", **detail: Any) -> None:
    """Record an event. Call it in the transaction of the change, so that both are committed or neither."""
    row = tx.one(
        "INSERT INTO event (at, actor, address, action, namespace, repository, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        now(), actor, address, action, names.namespace_of(repository), repository,
        json.dumps(detail) if detail else "",
    )  # fmt: skip
    assert row is not None
    webhooks.tell(tx, int(row[0]), action, repository)


@dataclass(frozen=True)
class HubEvent:
    id: int
    at: int
    actor: str
    address: str
    action: str
    repository: str
    detail: str


def page(tx: Tx, *, repository: str = "", before: int = 2**62, count: int = 100) -> list[HubEvent]:
    """Events of one repository or of all, newest first."""
    rows = tx.all(
        "SELECT id, at, actor, address, action, repository, detail FROM event"
        " WHERE id < ? AND (? = '' OR repository = ?) ORDER BY id DESC LIMIT ?",
        before, repository, repository, count,
    )  # fmt: skip
    return [HubEvent(int(row[0]), int(row[1]), *row[2:]) for row in rows]
