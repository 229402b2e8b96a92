"""All tables of the database in migration order, collected from the modules.

    meta            what this root was made with (its engine id, its storage driver)
    containers      one row a container: its immutable record and its mutable state
    events          what happened, newest last, bounded
    images …        see the modules named in the import list: each draws its own

A released migration is never edited; a change is a new entry of :data:`MIGRATIONS` and a test.
"""

from __future__ import annotations

from wherry.state import (
    builds,
    containers,
    content,
    events,
    images,
    meta,
    networks,
    secrets,
    snapshots,
    volume_snapshots,
    volumes,
)

MIGRATIONS: list[str] = [
    "\n".join(
        module.TABLES for module in (meta, containers, events, content, snapshots, images, networks, volumes)
    ),
    events.ADD_INITIATOR,
    volumes.ADD_IDS,
    volume_snapshots.TABLES,
    networks.SEVERAL_NETWORKS,
    builds.TABLES,
    secrets.TABLES,
    builds.SAID,
]
