"""Databases of tests: each is closed when nobody holds it any more, so no fixture has to."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

from wherry.state.database import Database


def open_database(path: Path | str, migrations: Sequence[str]) -> Database:
    """Python 3.13 and later warn of a connection that is collected before it was closed."""
    made = Database(path, migrations)
    weakref.finalize(made, made._connection.close)
    return made
