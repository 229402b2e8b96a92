"""Rows of events, for audits and webhooks. Rows are never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wherry.hub.core import names
from wherry.hub.store import webhooks
from wherry.hub.store.sql import Tx, now


def note(
    tx: Tx, actor: str, address: str, action: str, repository: str = "", namespace: str = "", **detail: Any
) -> None:
    """Record an event. Call it in the transaction of the change, so that both are committed or neither.

    :param namespace: for events that concern no repository; otherwise it is that of the repository.
    """
    row = tx.one(
        "INSERT INTO event (at, actor, address, action, namespace, repository, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        now(), actor, address, action, namespace or names.namespace_of(repository), repository,
        json.dumps(detail) if detail else "",
    )  # fmt: skip
    assert row is not None
    webhooks.tell(tx, int(row[0]), action, repository)


OPEN = (
    "manifest.push", "manifest.delete", "manifest.undelete", "tag.delete", "tag.revert", "tag.copy",
    "repository.create", "repository.describe", "repository.readme", "repository.publish",
    "repository.rename",
    "repository.archive", "repository.unarchive",
)  # fmt: skip
"""What everybody who can read a repository may know; grants, rules and webhooks are for those who manage
it."""


@dataclass(frozen=True)
class HubEvent:
    id: int
    at: int
    actor: str
    address: str
    action: str
    repository: str
    detail: str


@dataclass(frozen=True)
class EventFilter:
    """Which events; what is empty does not limit them.

    :ivar action: the beginning of it: ``tag.``.
    :ivar since, until: seconds.
    :ivar everything: false: only those of :data:`OPEN`.
    """

    repository: str = ""
    namespace: str = ""
    actor: str = ""
    action: str = ""
    since: int = 0
    until: int = 2**62
    everything: bool = True


ALL = EventFilter()


def page(tx: Tx, wanted: EventFilter = ALL, *, before: int = 2**62, count: int = 100) -> list[HubEvent]:
    """Events, newest first. :param before: the id of an event."""
    where, values = ["id < ?"], list[object]([before])
    for condition, value, given in (
        ("repository = ?", wanted.repository, bool(wanted.repository)),
        ("namespace = ?", wanted.namespace, bool(wanted.namespace)),
        ("actor = ?", wanted.actor, bool(wanted.actor)),
        ("substr(action, 1, ?) = ?", wanted.action, bool(wanted.action)),
        ("at >= ?", wanted.since, wanted.since > 0),
        ("at <= ?", wanted.until, wanted.until < 2**62),
    ):
        if given:
            where.append(condition)
            values += [len(wanted.action), value] if condition.startswith("substr") else [value]
    if not wanted.everything:
        where.append(f"action IN ({', '.join('?' for _ in OPEN)})")
        values += OPEN
    rows = tx.all(
        "SELECT id, at, actor, address, action, repository, detail FROM event"
        f" WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
        *values, count,
    )  # fmt: skip
    return [HubEvent(int(row[0]), int(row[1]), *row[2:]) for row in rows]
