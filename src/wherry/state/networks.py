"""Networks, and their addresses and ports.

networks(id, name, driver, created, record, cursor)
    id       64 hex digits; name unique; created nanoseconds since the epoch
    record   JSON, written by ``network.types``
    cursor   not used any more
cursors(network_id, cidr, address)
    the address of a subnet handed out last, so that the next one is another even after a restart
sandboxes(container_id, created, record)
    one row a container that has (or is about to have, or had) a network namespace; record as above
endpoints(id, network_id, container_id, ip, record, ip6, mac)
    a container's place on a network; ``ip``, ``ip6`` and ``mac`` are unique on their network, NULL where
    there is none
published(proto, host_ip, host_port, container_id, ip, container_port, sources)
    a host port that leads to ``ip:container_port``; the first three are unique together; ``sources`` are
    the subnets that may connect, with commas between, empty for all

A sandbox's row is written before anything of it exists in the kernel, and deleted after everything is gone.
The row is the reservation: if it were deleted first, another container could get its address while the host's
ports still lead there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wherry.errors import Conflict
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

SEVERAL_NETWORKS = """
ALTER TABLE endpoints ADD COLUMN ip6 TEXT;
ALTER TABLE endpoints ADD COLUMN mac TEXT;
CREATE UNIQUE INDEX endpoints_ip6 ON endpoints (network_id, ip6);
CREATE UNIQUE INDEX endpoints_mac ON endpoints (network_id, mac);
ALTER TABLE sandboxes ADD COLUMN record BLOB NOT NULL DEFAULT x'7b7d';
ALTER TABLE published ADD COLUMN sources TEXT NOT NULL DEFAULT '';
CREATE TABLE cursors (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    cidr TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (network_id, cidr)
) WITHOUT ROWID;
"""
"""A migration: both families, more than one network a container, allow-lists of published ports."""


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
    ip6: str | None = None
    mac: str | None = None


@dataclass(frozen=True)
class SandboxRow:
    container_id: str
    created: int
    record: bytes


@dataclass(frozen=True)
class PublishedRow:
    proto: str
    host_ip: str
    host_port: int
    container_id: str
    ip: str
    container_port: int
    sources: str = ""


_ENDPOINT = "SELECT id, network_id, container_id, ip, record, ip6, mac FROM endpoints"
_PUBLISHED = "SELECT proto, host_ip, host_port, container_id, ip, container_port, sources FROM published"


class Networks:
    """The repository. Methods take part in the caller's ``Database.transaction``, if there is one."""

    def __init__(self, db: Database) -> None:
        self.db = db

    # -- networks --------------------------------------------------------------------------------------

    def put_network(self, row: NetworkRow) -> None:
        """Insert a network, or replace the record of the one with the same id.

        :raises Conflict: another has its name.
        """
        try:
            self.db.execute(
                "INSERT INTO networks (id, name, driver, created, record) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (row.id, row.name, row.driver, row.created, row.record),
            )
        except sqlite3.IntegrityError as e:
            raise Conflict(f"network with name {row.name} already exists") from e

    def delete_network(self, network_id: str) -> bool:
        """:returns: False if a container still has an endpoint on it."""
        try:
            self.db.execute("DELETE FROM networks WHERE id = ?", (network_id,))
        except sqlite3.IntegrityError:
            return False
        return True

    def networks(self) -> list[NetworkRow]:
        """Every network, oldest first."""
        rows = self.db.all("SELECT id, name, driver, created, record FROM networks ORDER BY created, name")
        return [NetworkRow(*row) for row in rows]

    # -- addresses -------------------------------------------------------------------------------------

    def cursor(self, network_id: str, cidr: str) -> str:
        query = "SELECT address FROM cursors WHERE network_id = ? AND cidr = ?"
        row = self.db.one(query, (network_id, cidr))
        return "" if row is None else str(row["address"])

    def set_cursor(self, network_id: str, cidr: str, address: str) -> None:
        self.db.execute(
            "INSERT INTO cursors VALUES (?, ?, ?)"
            " ON CONFLICT (network_id, cidr) DO UPDATE SET address = excluded.address",
            (network_id, cidr, address),
        )

    def address_taken(self, network_id: str, address: str) -> bool:
        member = "ip6" if ":" in address else "ip"
        query = f"SELECT 1 FROM endpoints WHERE network_id = ? AND {member} = ?"
        return self.db.one(query, (network_id, address)) is not None

    def mac_taken(self, network_id: str, mac: str) -> bool:
        query = "SELECT 1 FROM endpoints WHERE network_id = ? AND mac = ?"
        return self.db.one(query, (network_id, mac)) is not None

    def addresses_in_use(self, network_id: str, family: int = 4) -> list[str]:
        member = "ip6" if family == 6 else "ip"
        query = f"SELECT {member} AS a FROM endpoints WHERE network_id = ? AND {member} IS NOT NULL"
        return [str(r["a"]) for r in self.db.all(query, (network_id,))]

    # -- sandboxes -------------------------------------------------------------------------------------

    def insert_sandbox(self, container_id: str, created: int, record: bytes = b"{}") -> bool:
        """:returns: False if the container has a sandbox already."""
        try:
            self.db.execute("INSERT INTO sandboxes VALUES (?, ?, ?)", (container_id, created, record))
        except sqlite3.IntegrityError:
            return False
        return True

    def set_sandbox_record(self, container_id: str, record: bytes) -> None:
        self.db.execute("UPDATE sandboxes SET record = ? WHERE container_id = ?", (record, container_id))

    def delete_sandbox(self, container_id: str) -> None:
        """Its endpoints and ports go with it."""
        self.db.execute("DELETE FROM sandboxes WHERE container_id = ?", (container_id,))

    def sandboxes(self, *, container_id: str | None = None) -> list[SandboxRow]:
        """All, or those of one container, oldest first."""
        query = "SELECT container_id, created, record FROM sandboxes"
        if container_id is None:
            return [SandboxRow(*r) for r in self.db.all(query + " ORDER BY created")]
        return [SandboxRow(*r) for r in self.db.all(query + " WHERE container_id = ?", (container_id,))]

    def has_sandbox(self, container_id: str) -> bool:
        return self.db.one("SELECT 1 FROM sandboxes WHERE container_id = ?", (container_id,)) is not None

    # -- endpoints -------------------------------------------------------------------------------------

    def insert_endpoint(self, row: EndpointRow) -> bool:
        """:returns: False if its network or sandbox is gone, it has an endpoint there already,
        or an address is taken."""
        try:
            self.db.execute(
                "INSERT INTO endpoints (id, network_id, container_id, ip, record, ip6, mac)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.network_id, row.container_id, row.ip, row.record, row.ip6, row.mac),
            )
        except sqlite3.IntegrityError:
            return False
        return True

    def update_endpoint(self, row: EndpointRow) -> None:
        """Replace the addresses and the record of the endpoint with the same id."""
        self.db.execute(
            "UPDATE endpoints SET ip = ?, record = ?, ip6 = ?, mac = ? WHERE id = ?",
            (row.ip, row.record, row.ip6, row.mac, row.id),
        )

    def delete_endpoint(self, endpoint_id: str) -> None:
        self.db.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))

    def endpoints(
        self, *, container_id: str | None = None, network_id: str | None = None
    ) -> list[EndpointRow]:
        """All endpoints, or those of one container or network, in the order of their ids."""
        if container_id is not None:
            rows = self.db.all(_ENDPOINT + " WHERE container_id = ? ORDER BY id", (container_id,))
        elif network_id is not None:
            rows = self.db.all(_ENDPOINT + " WHERE network_id = ? ORDER BY id", (network_id,))
        else:
            rows = self.db.all(_ENDPOINT + " ORDER BY id")
        return [EndpointRow(*r) for r in rows]

    # -- published ports -------------------------------------------------------------------------------

    def insert_published(self, rows: Iterable[PublishedRow]) -> None:
        with self.db.transaction() as connection:
            connection.executemany(
                "INSERT INTO published VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (r.proto, r.host_ip, r.host_port, r.container_id, r.ip, r.container_port, r.sources)
                    for r in rows
                ],
            )

    def delete_published(self, rows: Iterable[PublishedRow]) -> None:
        """Missing ones are no error."""
        with self.db.transaction() as connection:
            connection.executemany(
                "DELETE FROM published"
                " WHERE proto = ? AND host_ip = ? AND host_port = ? AND container_id = ?",
                [(r.proto, r.host_ip, r.host_port, r.container_id) for r in rows],
            )

    def published_at(self, proto: str, host_ips: Sequence[str], host_port: int) -> PublishedRow | None:
        """A published host port on one of some addresses."""
        marks = ", ".join("?" * len(host_ips))
        condition = f" WHERE proto = ? AND host_port = ? AND host_ip IN ({marks})"
        rows = self.db.all(_PUBLISHED + condition, (proto, host_port, *host_ips))
        return PublishedRow(*rows[0]) if rows else None

    def published(self, *, container_id: str | None = None, kept: bool = False) -> list[PublishedRow]:
        """All published ports, or a container's, by protocol and port; with ``kept`` only those of a
        container that are the same on both sides."""
        order = " ORDER BY container_port, proto, host_ip, host_port"
        if container_id is None:
            return [PublishedRow(*r) for r in self.db.all(_PUBLISHED + order)]
        condition = " WHERE container_id = ?" + (" AND host_port = container_port" if kept else "")
        rows = self.db.all(_PUBLISHED + condition + order, (container_id,))
        return [PublishedRow(*r) for r in rows]
