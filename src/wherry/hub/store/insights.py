"""Rows of pulls by day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherry.hub.store.sql import Tx, now

DAY = 86400
KINDS = {"tag": "tag", "platform": "platform", "client": "client"}
"""What pulls can be split by -> the column."""


@dataclass(frozen=True)
class PullKey:
    """What pulls are counted by. ``digest`` is the manifest that was sent, for its platform."""

    repository: int
    tag: str
    digest: str
    client: str


def today() -> int:
    """Days since the epoch, in UTC."""
    return now() // DAY


def count(tx: Tx, pulls: Mapping[PullKey, int]) -> None:
    """Add pulls to the day. All writers use the same order, so that they never deadlock."""
    day, sums = today(), dict[tuple[int, str, str, str], int]()
    for key, number in pulls.items():
        row = (key.repository, key.tag, _platform(tx, key), key.client)
        sums[row] = sums.get(row, 0) + number
    for (repository, tag, platform, client), number in sorted(sums.items()):
        tx.run(
            "INSERT INTO pull_daily (repository_id, day, tag, platform, client, pulls)"
            " SELECT id, ?, ?, ?, ?, ? FROM repository WHERE id = ?"
            " ON CONFLICT (repository_id, day, tag, platform, client)"
            " DO UPDATE SET pulls = pull_daily.pulls + excluded.pulls",
            day, tag, platform, client, number, repository,
        )  # fmt: skip


def _platform(tx: Tx, key: PullKey) -> str:
    row = tx.one(
        "SELECT f.os, f.architecture FROM manifest m JOIN image_fact f ON f.manifest_id = m.id"
        " WHERE m.repository_id = ? AND m.digest = ?",
        key.repository, key.digest,
    )  # fmt: skip
    return f"{row[0]}/{row[1]}" if row is not None and row[1] else ""


def daily(tx: Tx, repository: int, days: int) -> list[tuple[int, int]]:
    """(day, pulls) for each of the last ``days``, oldest first, days without pulls included."""
    first = today() - days + 1
    rows = tx.all(
        "SELECT day, sum(pulls) FROM pull_daily WHERE repository_id = ? AND day >= ? GROUP BY day",
        repository, first,
    )  # fmt: skip
    found = {int(row[0]): int(row[1]) for row in rows}
    return [(day, found.get(day, 0)) for day in range(first, first + days)]


def split(tx: Tx, repository: int, days: int, kind: str, most: int = 12) -> list[tuple[str, int]]:
    """Pulls of the last ``days`` by a key of :data:`KINDS`, most first."""
    rows = tx.all(
        f"SELECT {KINDS[kind]}, sum(pulls) FROM pull_daily WHERE repository_id = ? AND day >= ?"
        " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",
        repository, today() - days + 1, most,
    )  # fmt: skip
    return [(row[0], int(row[1])) for row in rows]


def rows_of(tx: Tx, repository: int, days: int) -> list[tuple[int, str, str, str, int]]:
    """Everything of the last ``days``, for CSV: (day, tag, platform, client, pulls)."""
    rows = tx.all(
        "SELECT day, tag, platform, client, pulls FROM pull_daily WHERE repository_id = ? AND day >= ?"
        " ORDER BY 1, 2, 3, 4 LIMIT 100000",
        repository, today() - days + 1,
    )  # fmt: skip
    return [(int(row[0]), row[1], row[2], row[3], int(row[4])) for row in rows]


def refresh_recent(tx: Tx) -> None:
    """Sum up the pulls of the last seven days of each repository, for the list of what is trending."""
    first = today() - 6
    tx.run("UPDATE repository SET recent_pulls = 0 WHERE recent_pulls > 0")
    for repository, pulls in tx.all(
        "SELECT repository_id, sum(pulls) FROM pull_daily WHERE day >= ? GROUP BY repository_id", first
    ):
        tx.run("UPDATE repository SET recent_pulls = ? WHERE id = ?", int(pulls), repository)


def forget(tx: Tx, days: int) -> int:
    """Delete the rows of days before the last ``days``."""
    return tx.run("DELETE FROM pull_daily WHERE day < ?", today() - days)
