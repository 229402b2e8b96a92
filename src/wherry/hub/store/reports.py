"""Rows of reports of abuse."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.store.sql import Tx, now

REASONS = {
    "malware": "Malware or an attack",
    "secret": "Leaked secrets or personal data",
    "impersonation": "Pretends to be somebody else",
    "copyright": "Violates copyright or a licence",
    "spam": "Spam or advertising",
    "other": "Something else",
}
_MESSAGE_MAX = 4000
_OPEN_MAX = 20
"""The maximum number of open reports by one account."""


@dataclass(frozen=True)
class AbuseReport:
    id: int
    account: str
    repository: str
    reason: str
    message: str
    created: int
    closed: int | None
    closed_by: str


def add(tx: Tx, account: int, repository: str, reason: str, message: str) -> int:
    """:raises InvalidArgument: an unknown reason, too long, or too many open reports."""
    if reason not in REASONS:
        raise InvalidArgument("choose a reason")
    if len(message) > _MESSAGE_MAX:
        raise InvalidArgument(f"at most {_MESSAGE_MAX} characters")
    row = tx.one("SELECT count(*) FROM abuse_report WHERE account_id = ? AND closed IS NULL", account)
    if row is not None and row[0] >= _OPEN_MAX:
        raise InvalidArgument("too many open reports: wait until some of them have been looked at")
    row = tx.one(
        "INSERT INTO abuse_report (account_id, repository, reason, message, created) VALUES (?, ?, ?, ?, ?)"
        " RETURNING id",
        account, repository, reason, message.replace("\0", ""), now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def page(tx: Tx, *, closed: bool = False, count: int = 100) -> list[AbuseReport]:
    """Newest first."""
    rows = tx.all(
        "SELECT p.id, coalesce(a.name, ''), p.repository, p.reason, p.message, p.created, p.closed,"
        " p.closed_by"
        " FROM abuse_report p LEFT JOIN account a ON a.id = p.account_id"
        f" WHERE p.closed IS {'NOT NULL' if closed else 'NULL'} ORDER BY p.id DESC LIMIT ?",
        count,
    )
    return [
        AbuseReport(int(row[0]), row[1], row[2], row[3], row[4], int(row[5]), row[6], row[7]) for row in rows
    ]


def close(tx: Tx, number: int, by: str) -> str:
    """:returns: the repository. :raises NotFound: no such open report."""
    row = tx.one("SELECT repository FROM abuse_report WHERE id = ? AND closed IS NULL", number)
    if row is None:
        raise NotFound(f"no such open report: {number}")
    tx.run("UPDATE abuse_report SET closed = ?, closed_by = ? WHERE id = ?", now(), by, number)
    return str(row[0])
