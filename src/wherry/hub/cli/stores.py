"""The databases and object stores; only this module names them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from wherry.errors import Unavailable
from wherry.hub.cli.config import HubConfig
from wherry.hub.store import schema
from wherry.hub.store.files import Files
from wherry.hub.store.objects import Objects
from wherry.hub.store.sql import HubDatabase
from wherry.hub.store.sqlite import Sqlite

DATABASE_FILE = "hub.db"


def prepare(root: Path) -> None:
    """:raises Unavailable: the root directory cannot be created."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise Unavailable(f"cannot create {root}: {os.strerror(e.errno or 0)}") from e


def open_database(config: HubConfig) -> HubDatabase:
    """:raises Unavailable: it does not answer, or its driver is not installed."""
    if not config.database:
        prepare(config.root)
        return Sqlite(config.root / DATABASE_FILE)
    try:
        from wherry.hub.store.postgres import Postgres
    except ImportError as e:
        raise Unavailable("PostgreSQL needs psycopg: install wherry[hub-postgres]") from e
    return Postgres(config.database)


def open_objects(config: HubConfig) -> Objects:
    """:raises Unavailable:"""
    if not config.objects:
        prepare(config.root)
        return Files(config.root)
    try:
        from wherry.hub.store.s3 import S3
    except ImportError as e:
        raise Unavailable("S3 needs aiobotocore: install wherry[hub-s3]") from e
    return S3(config.objects)


@asynccontextmanager
async def database(config: HubConfig, *, migrate: bool = False) -> AsyncIterator[HubDatabase]:
    """Open the database at this program's version. SQLite is migrated by the first process that opens it;
    PostgreSQL only on request, because replicas of the previous version may still run.

    :raises Unavailable: it is of another version.
    """
    db = open_database(config)
    try:
        if migrate or not config.database:
            await schema.migrate(db)
        else:
            await schema.check(db)
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def stores(config: HubConfig) -> AsyncIterator[tuple[HubDatabase, Objects]]:
    async with database(config) as db:
        objects = open_objects(config)
        try:
            yield db, objects
        finally:
            await objects.close()
