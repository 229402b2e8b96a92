"""Rows of replication rules: what is copied from or to another registry, when, and the last result."""

from __future__ import annotations

import json
from dataclasses import dataclass

from wherry.errors import NotFound
from wherry.hub.core import globs
from wherry.hub.store.sql import Row, Tx, now

PULL, PUSH = "pull", "push"
LEASE = 30
"""Seconds after which a worker's lease on a rule expires, unless the worker renews it."""
_OVERLAP = 60
_BEFORE = 1000
"""Each run starts this many seconds and rows before the end of the last one, because with several processes a
row may become visible after a row with a higher number. Content that is already copied costs one request."""
_RETRY, _RETRY_MAX = 30, 3600


@dataclass(frozen=True)
class ReplicationRule:
    """:ivar every: seconds between two full runs.
    :ivar since: when the last successful run began, in seconds since the epoch.
    """

    id: int
    direction: str
    repository: str
    tags: str
    url: str
    username: str
    password: str
    realm: str
    prefix: str
    every: int
    deletes: bool
    next_at: int = 0
    seen: int = 0
    seen_event: int = 0
    since: int = 0
    ended: int | None = None
    failures: int = 0
    outcome: str = ""

    def copy_of(self, name: str) -> str:
        """The name of the copy of a repository."""
        return f"{self.prefix}/{name}" if self.prefix else name


_COLUMNS = (
    "id, direction, repository, tags, url, username, password, realm, prefix, every, deletes, next_at, seen,"
    " seen_event, since, ended, failures, outcome"
)


def _rule(row: Row) -> ReplicationRule:
    (number, direction, repository, tags, url, username, password, realm, prefix, every, deletes, next_at,
     seen, seen_event, since, ended, failures, outcome) = row  # fmt: skip
    return ReplicationRule(
        int(number), direction, repository, tags, url, username, password, realm, prefix, int(every),
        bool(deletes), int(next_at), int(seen), int(seen_event), int(since), ended, int(failures), outcome,
    )  # fmt: skip


def add(tx: Tx, rule: ReplicationRule) -> int:
    """Add a rule; its first run is due at once. :returns: its id. :raises InvalidArgument: invalid
    pattern."""
    row = tx.one(
        "INSERT INTO replication (direction, repository, tags, url, username, password, realm, prefix, every,"
        " deletes, created, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        rule.direction, globs.check(rule.repository), globs.check(rule.tags), rule.url, rule.username,
        rule.password, rule.realm, rule.prefix, rule.every, rule.deletes, now(), now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def all_of(tx: Tx) -> list[ReplicationRule]:
    return [_rule(row) for row in tx.all(f"SELECT {_COLUMNS} FROM replication ORDER BY id")]


def needed(tx: Tx, number: int) -> ReplicationRule:
    """:raises NotFound:"""
    row = tx.one(f"SELECT {_COLUMNS} FROM replication WHERE id = ?", number)
    if row is None:
        raise NotFound(f"no such replication: {number}")
    return _rule(row)


def remove(tx: Tx, number: int) -> None:
    """:raises NotFound:"""
    if not tx.run("DELETE FROM replication WHERE id = ?", number):
        raise NotFound(f"no such replication: {number}")


def take(tx: Tx, number: int, *, due: bool = True) -> ReplicationRule | None:
    """Take a lease on a rule. :returns: None if another worker has the lease, or the rule is not due."""
    changed = tx.run(
        "UPDATE replication SET lease_until = ? WHERE id = ? AND lease_until <= ? AND (? OR next_at <= ?)",
        now() + LEASE, number, now(), not due, now(),
    )  # fmt: skip
    return needed(tx, number) if changed else None


def renew(tx: Tx, number: int) -> None:
    tx.run("UPDATE replication SET lease_until = ? WHERE id = ?", now() + LEASE, number)


def let_go(tx: Tx, number: int) -> None:
    """Release the lease after an interrupted run, so that another run can begin at once."""
    tx.run("UPDATE replication SET lease_until = 0 WHERE id = ?", number)


def done(tx: Tx, rule: ReplicationRule, began: int, seen: tuple[int, int], outcome: str) -> None:
    """Record a successful full run. :param seen: the last rows of tag_history and event when it began."""
    tx.run(
        "UPDATE replication SET lease_until = 0, next_at = ?, since = ?, seen = ?, seen_event = ?, ended = ?,"
        " failures = 0, outcome = ? WHERE id = ?",
        now() + rule.every, began, *seen, now(), outcome, rule.id,
    )  # fmt: skip


def changes_done(tx: Tx, rule: ReplicationRule, began: int, seen: tuple[int, int], outcome: str) -> None:
    """Record a successful run that copied only changes. The time of the next full run stays as it is."""
    tx.run(
        "UPDATE replication SET lease_until = 0, since = ?, seen = ?, seen_event = ?, ended = ?, outcome = ?"
        " WHERE id = ?",
        began, *seen, now(), outcome, rule.id,
    )  # fmt: skip


def failed(tx: Tx, rule: ReplicationRule, outcome: str) -> None:
    """Record a failed run. The next one is due after a time that doubles with each failure."""
    tx.run(
        "UPDATE replication SET lease_until = 0, next_at = ?, ended = ?, failures = failures + 1, outcome = ?"
        " WHERE id = ?",
        now() + min(_RETRY_MAX, _RETRY * 2 ** min(rule.failures, 7)), now(), outcome[:1000], rule.id,
    )  # fmt: skip


def newest(tx: Tx) -> tuple[int, int]:
    """The ids of the last rows of tag_history and event."""
    tags, events = tx.one("SELECT max(id) FROM tag_history"), tx.one("SELECT max(id) FROM event")
    return int((tags and tags[0]) or 0), int((events and events[0]) or 0)


@dataclass(frozen=True)
class Changes:
    """:ivar tags: (repository, tag) of tags that were moved or deleted.
    :ivar digests: (repository, digest) of new manifests.
    """

    tags: frozenset[tuple[str, str]]
    digests: frozenset[tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.tags or self.digests)


def changes(tx: Tx, rule: ReplicationRule) -> Changes:
    """The changes since the last run to the repositories and tags that a rule names."""
    moved = tx.all(
        "SELECT DISTINCT r.name, h.name FROM tag_history h JOIN repository r ON r.id = h.repository_id"
        " WHERE h.id > ? AND h.at >= ? AND r.deleted IS NULL",
        rule.seen - _BEFORE, rule.since - _OVERLAP,
    )  # fmt: skip
    came = tx.all(
        "SELECT repository, detail FROM event WHERE id > ? AND at >= ? AND action = 'manifest.push'",
        rule.seen_event - _BEFORE, rule.since - _OVERLAP,
    )  # fmt: skip
    digests = {
        (name, json.loads(detail).get("digest", ""))
        for name, detail in came
        if detail and _is_named(rule, name)
    }
    return Changes(
        frozenset(
            (name, tag) for name, tag in moved if _is_named(rule, name) and globs.matches(rule.tags, tag)
        ),
        frozenset((name, digest) for name, digest in digests if digest),
    )


def _is_named(rule: ReplicationRule, name: str) -> bool:
    return globs.matches(rule.repository, name)
