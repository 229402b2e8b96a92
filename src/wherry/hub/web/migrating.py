"""Django's own tables (sessions, e-mail addresses, second factors), in the same database as the hub's."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from wherry.errors import Unavailable

_LOCK = 0x77686573
"""The number of PostgreSQL's advisory lock; an arbitrary constant."""


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time migrates."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        return
    path = Path(str(connection.settings_dict["NAME"]))
    with path.with_name(f"{path.name}.migrating").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pending() -> list[str]:
    """The migrations of Django's that have not run."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{step.app_label}.{step.name}" for step, _ in plan]


def migrate() -> list[str]:
    """Run what has not run; the hub's own tables must exist. :returns: the names of what was run."""
    if not pending():
        return []
    with _alone():
        todo = pending()
        if todo:
            call_command("migrate", interactive=False, verbosity=0)
    return todo


def forget_sessions() -> None:
    call_command("clearsessions", verbosity=0)


def check() -> None:
    """:raises Unavailable: the tables are not those of this program."""
    if todo := pending():
        raise Unavailable(f"the database lacks {len(todo)} migrations for pages: run wherry-hub migrate")
