"""What leases leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import open_database

from wherry.model import digest as digests
from wherry.state.content import LeaseRows
from wherry.state.schema import MIGRATIONS
from wherry.storage.leases import Leases


@pytest.mark.parametrize(
    "keeps, worthwhile, left", [(False, True, 0), (True, True, 1), (True, False, 0), (False, False, 0)]
)
def test_work_that_failed(tmp_path: Path, keeps: bool, worthwhile: bool, left: int) -> None:
    """A lease is only there to go on with where it keeps something."""
    db = open_database(tmp_path / "db", MIGRATIONS)
    try:
        rows = LeaseRows(db)
        with (
            pytest.raises(ConnectionError),
            Leases(rows).resume("pull x", worthwhile=lambda _e: worthwhile) as lease,
        ):
            if keeps:
                lease.keep_content(digests.of(b"x"))
            raise ConnectionError
        assert len(rows.named("unfinished ")) == left
    finally:
        db.close()
