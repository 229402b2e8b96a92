"""Rows of values that belong to the hub as a whole."""

from __future__ import annotations

import secrets

from wherry.hub.store.sql import Tx

BANNER, SESSION_KEY = "banner", "session-key"


def get(tx: Tx, name: str) -> str:
    """Empty if it is not set."""
    row = tx.one("SELECT value FROM site_value WHERE name = ?", name)
    return str(row[0]) if row is not None else ""


def put(tx: Tx, name: str, value: str) -> None:
    tx.run("DELETE FROM site_value WHERE name = ?", name)
    if value:
        tx.run("INSERT INTO site_value (name, value) VALUES (?, ?)", name, value)


def session_key(tx: Tx) -> str:
    """The secret that signs cookies and links; made by the first process that needs it."""
    tx.run(
        "INSERT INTO site_value (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
        SESSION_KEY, secrets.token_urlsafe(48),
    )  # fmt: skip
    return get(tx, SESSION_KEY)
