"""What makes the database durable, and in which order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wherry.state.database import Database
from wherry.state.meta import Meta
from wherry.state.schema import MIGRATIONS


@pytest.mark.parametrize(
    ("rows_only", "calls"),
    [
        # The log's inode is changed first: fsync commits the journal only up to its last change,
        # and with it what was done to directories.
        (False, ["utime", "fsync"]),
        (True, ["fdatasync"]),
    ],
)
def test_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_only: bool, calls: list[str]
) -> None:
    database = Database(tmp_path / "wherry.db", MIGRATIONS)
    made: list[str] = []

    def note(name: str) -> None:
        original = getattr(os, name)

        def noted(fd: int, *arguments: Any) -> Any:
            if os.readlink(f"/proc/self/fd/{fd}").endswith("wherry.db-wal"):
                made.append(name)
            return original(fd, *arguments)

        monkeypatch.setattr(os, name, noted)

    try:
        Meta(database).set_default("a", "b")
        for name in ("utime", "fsync", "fdatasync"):
            note(name)
        database.settle(rows_only=rows_only)
        database.settle(rows_only=rows_only)  # there is nothing left to do
        assert made == calls
        assert database.is_settled(rows_only=rows_only)
    finally:
        monkeypatch.undo()
        database.close()
