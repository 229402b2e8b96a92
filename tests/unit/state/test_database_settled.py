"""What makes the database durable, and in which order."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from wherry.state import database
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
    opened = Database(tmp_path / "wherry.db", MIGRATIONS)
    made: list[str] = []

    def note(name: str) -> None:
        original = getattr(os, name)

        def noted(fd: int, *arguments: Any) -> Any:
            if os.readlink(f"/proc/self/fd/{fd}").endswith("wherry.db-wal"):
                made.append(name)
            return original(fd, *arguments)

        monkeypatch.setattr(os, name, noted)

    try:
        Meta(opened).set_default("a", "b")
        for name in ("utime", "fsync", "fdatasync"):
            note(name)
        opened.settle(rows_only=rows_only)
        opened.settle(rows_only=rows_only)  # there is nothing left to do
        assert made == calls
        assert opened.is_settled(rows_only=rows_only)
    finally:
        monkeypatch.undo()
        opened.close()


def test_placeholders_have_no_numbers() -> None:
    """Python 3.14 refuses ``?1`` with a sequence; 3.12 warns of it."""
    found = [
        path.name
        for path in Path(database.__file__).parent.glob("*.py")
        if re.search(r"\?[0-9]", path.read_text())
    ]
    assert found == []
