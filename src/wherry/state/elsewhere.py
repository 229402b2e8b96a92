"""A database that was moved to another host: rows that are valid only on the former host are deleted."""

from __future__ import annotations

from wherry.state.database import Database

_FORGOTTEN = (
    "published",  # every container gets new addresses and ports at its next start
    "endpoints",
    "sandboxes",
    "lease_items",
    "leases",
    "build_keys",
    "build_layers",
    "build_records",  # the cache: builds make it again
    "volume_snapshots",
    "snapshots",  # unpacked again
)
_MADE_WITH = ("engine_id", "storage_driver")


def forget_host(db: Database) -> None:
    """Keep only rows that are valid on every host: containers, images, volumes, networks, secrets,
    events."""
    with db.transaction() as connection:
        connection.execute("UPDATE snapshots SET parent = NULL")
        for table in _FORGOTTEN:
            connection.execute(f"DELETE FROM {table}")
        connection.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in _MADE_WITH])
