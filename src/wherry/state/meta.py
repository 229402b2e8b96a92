"""Facts about this root itself.

meta(key, value)     engine_id, storage_driver
"""

from __future__ import annotations

from wherry.state.database import Database

TABLES = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


class Meta:
    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, key: str) -> str | None:
        row = self._db.one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row["value"])

    def set_default(self, key: str, value: str) -> str:
        """Keep the first value ever set for ``key`` and return it."""
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
        kept = self.get(key)
        assert kept is not None
        return kept
