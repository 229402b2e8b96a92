"""Figures of the database for monitoring."""

from __future__ import annotations

from wherry.hub.store.sql import Tx, now


def alive(tx: Tx) -> None:
    tx.one("SELECT 1")


def queues(tx: Tx) -> dict[str, int]:
    """The number of the worker's pending jobs, the age of the oldest in seconds, and the stored amounts."""
    moment = now()
    found: dict[str, int] = {}
    due = {
        "manifests": ("manifest", "keep_until"),
        "links": ("repository_blob", "keep_until"),
        "blobs": ("blob", "gc_after"),
        "trash": ("trash", "delete_after"),
        "uploads_expired": ("upload", "expires"),
    }
    for name, (table, column) in due.items():
        row = tx.one(f"SELECT count(*), min({column}) FROM {table} WHERE {column} <= ?", moment)
        assert row is not None
        found[f"{name}_due"] = int(row[0])
        found[f"{name}_due_age_seconds"] = moment - int(row[1]) if row[1] is not None else 0
    row = tx.one("SELECT count(*) FROM upload")
    found["uploads_open"] = int(row[0]) if row else 0
    return found
