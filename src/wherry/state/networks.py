"""Networks and who has which address and port on them.

networks(id, name, driver, created, record, cursor)
    id       64 hex digits; name unique; created nanoseconds since the epoch
    record   JSON, written by ``network.types``
    cursor   the address handed out last, so that the next one is another even after a restart
sandboxes(container_id, created)
    one row a container that has (or is about to have, or had) a network namespace
endpoints(id, network_id, container_id, ip, record)
    a container's place on a network; ``ip`` is unique on its network, NULL where there is none
published(proto, host_ip, host_port, container_id, ip, container_port)
    a host port that leads to ``ip:container_port``; the first three are unique together

A sandbox's row is written before anything of it exists in the kernel and deleted after all of it is gone:
here the row is the reservation, and deleting it first would give its address to another container while
the host's ports still lead there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from wherry.state.database import Database

TABLES = """
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    created INTEGER NOT NULL,
    record BLOB NOT NULL,
    cursor TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE sandboxes (
    container_id TEXT PRIMARY KEY,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks (id),
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    ip TEXT,
    record BLOB NOT NULL,
    UNIQUE (network_id, ip),
    UNIQUE (container_id, network_id)
) WITHOUT ROWID;
CREATE TABLE published (
    proto TEXT NOT NULL,
    host_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    ip TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    PRIMARY KEY (proto, host_ip, host_port)
) WITHOUT ROWID;
CREATE INDEX published_by_container ON published (container_id);
"""


@dataclass(frozen=True)
class NetworkRow:
    id: str
    name: str
    driver: str
    created: int
    record: bytes


@dataclass(frozen=True)
class EndpointRow:
    id: str
    network_id: str
    container_id: str
    ip: str | None
    record: bytes


@dataclass(frozen=True)
class PublishedRow:
    proto: str
    host_ip: str
    host_port: int
    container_id: str
    ip: str
    container_port: int


class Networks:
    """The repository. Methods join the caller's ``Database.transaction`` where there is one."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def put_network(self, row: NetworkRow) -> None:
        """Insert a network, or replace the record of the one with the same id."""
        self.db.execute(
            "INSERT INTO networks (id, name, driver, created, record) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET record = excluded.record, cursor = ''",
            (row.id, row.name, row.driver, row.created, row.record),
        )

    def networks(self) -> list[NetworkRow]:
        """Every network, oldest first."""
        rows = self.db.all("SELECT id, name, driver, created, record FROM networks ORDER BY created, name")
        return [NetworkRow(*row) for row in rows]

    def cursor(self, network_id: str) -> str:
        row = self.db.one("SELECT cursor FROM networks WHERE id = ?", (network_id,))
        return "" if row is None else str(row["cursor"])

    def set_cursor(self, network_id: str, address: str) -> None:
        self.db.execute("UPDATE networks SET cursor = ? WHERE id = ?", (address, network_id))

    def address_taken(self, network_id: str, address: str) -> bool:
        query = "SELECT 1 FROM endpoints WHERE network_id = ? AND ip = ?"
        return self.db.one(query, (network_id, address)) is not None

    def addresses_in_use(self, network_id: str) -> int:
        query = "SELECT count(*) AS n FROM endpoints WHERE network_id = ? AND ip IS NOT NULL"
        row = self.db.one(query, (network_id,))
        return int(row["n"]) if row else 0

    def insert_sandbox(self, container_id: str, created: int) -> bool:
        """:returns: False if the container has a sandbox already."""
        try:
            self.db.execute("INSERT INTO sandboxes VALUES (?, ?)", (container_id, created))
        except sqlite3.IntegrityError:
            return False
        return True

    def insert_endpoint(self, row: EndpointRow) -> None:
        self.db.execute(
            "INSERT INTO endpoints VALUES (?, ?, ?, ?, ?)",
            (row.id, row.network_id, row.container_id, row.ip, row.record),
        )

    def insert_published(self, rows: Iterable[PublishedRow]) -> None:
        with self.db.transaction() as connection:
            connection.executemany(
                "INSERT INTO published VALUES (?, ?, ?, ?, ?, ?)",
                [(r.proto, r.host_ip, r.host_port, r.container_id, r.ip, r.container_port) for r in rows],
            )

    def delete_published(self, rows: Iterable[PublishedRow]) -> None:
        """Those that are not there are fine."""
        with self.db.transaction() as connection:
            connection.executemany(
                "DELETE FROM published"
                " WHERE proto = ? AND host_ip = ? AND host_port = ? AND container_id = ?",
                [(r.proto, r.host_ip, r.host_port, r.container_id) for r in rows],
            )

    def delete_sandbox(self, container_id: str) -> None:
        """Its endpoints and ports go with it."""
        self.db.execute("DELETE FROM sandboxes WHERE container_id = ?", (container_id,))

    def sandboxes(self) -> list[str]:
        """Container ids, oldest first."""
        return [r["container_id"] for r in self.db.all("SELECT container_id FROM sandboxes ORDER BY created")]

    def has_sandbox(self, container_id: str) -> bool:
        return self.db.one("SELECT 1 FROM sandboxes WHERE container_id = ?", (container_id,)) is not None

    def endpoints(self, *, container_id: str | None = None) -> list[EndpointRow]:
        """All endpoints, or a container's, in the order of their ids."""
        query = "SELECT id, network_id, container_id, ip, record FROM endpoints"
        if container_id is None:
            return [EndpointRow(*r) for r in self.db.all(query + " ORDER BY id")]
        rows = self.db.all(query + " WHERE container_id = ? ORDER BY id", (container_id,))
        return [EndpointRow(*r) for r in rows]

    def published(self, *, container_id: str | None = None) -> list[PublishedRow]:
        """All published ports, or a container's, by protocol and port."""
        query = "SELECT proto, host_ip, host_port, container_id, ip, container_port FROM published"
        order = " ORDER BY container_port, proto, host_ip, host_port"
        if container_id is None:
            return [PublishedRow(*r) for r in self.db.all(query + order)]
        rows = self.db.all(query + " WHERE container_id = ?" + order, (container_id,))
        return [PublishedRow(*r) for r in rows]
