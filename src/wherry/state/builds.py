"""The build cache's records and the history of builds.

build_records(id, kind, snapshot, place, parent, description, created, used, uses, size)
    one thing the cache holds
    kind         regular (a step's files), source.local (a context), source.remote (fetched), exec.cachemount
    snapshot     key of the committed snapshot of a step, which it keeps from the collector; NULL for others
    place        directory below <root>/build of what is no snapshot; NULL for steps
    parent       the record whose files this one starts from, '' for none
    created      and used: nanoseconds since the epoch; uses: how often it was found; size: bytes
build_keys(key, record)
    a content key (sha256) -> the record that answers it; several keys may lead to one record
build_layers(chain_id, form) -> diff_id, digest, size, media_type
    what a snapshot of a step is as a layer; form says how it was written (plain, gzip, zstd:3 …)
build_said(id, data)
    what its steps printed, for who reads it again: packed, see keep_said; goes with the build's row
build_history(id, started, finished, status, document)
    one row a build; document is JSON, see engine.builds.history
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from wherry.errors import NotFound
from wherry.model.digest import Digest
from wherry.model.typed import from_msgpack
from wherry.state.database import Database, Row

REGULAR, LOCAL, REMOTE, CACHE_MOUNT = "regular", "source.local", "source.remote", "exec.cachemount"

TABLES = """
CREATE TABLE build_records (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    snapshot TEXT,
    place TEXT,
    parent TEXT NOT NULL,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX build_records_by_snapshot ON build_records (snapshot);
CREATE TABLE build_keys (
    key TEXT PRIMARY KEY,
    record TEXT NOT NULL REFERENCES build_records (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX build_keys_by_record ON build_keys (record);
CREATE TABLE build_layers (
    chain_id TEXT NOT NULL,
    form TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (chain_id, form)
) WITHOUT ROWID;
CREATE TABLE build_history (
    id TEXT PRIMARY KEY,
    started INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    status TEXT NOT NULL,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX build_history_by_time ON build_history (started);
"""


SAID = """
CREATE TABLE build_said (
    id TEXT PRIMARY KEY REFERENCES build_history (id) ON DELETE CASCADE,
    data BLOB NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class RecordRow:
    """Times in nanoseconds since the epoch, ``size`` in bytes."""

    id: str
    kind: str
    snapshot: str | None
    place: str | None
    parent: str
    description: str
    created: int
    used: int
    uses: int
    size: int


@dataclass(frozen=True)
class LayerRow:
    """A layer as it is in images; ``size`` of the blob in bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    media_type: str


@dataclass(frozen=True)
class HistoryRow:
    """``finished`` is 0 while it runs; ``document`` is JSON."""

    id: str
    started: int
    finished: int
    status: str
    document: str


class BuildRows:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # records

    def find(self, keys: Sequence[str]) -> RecordRow | None:
        """The record for the first of the keys that has one."""
        for key in keys:
            row = self._db.one(
                "SELECT r.* FROM build_keys AS k JOIN build_records AS r ON r.id = k.record WHERE k.key = ?",
                (key,),
            )
            if row is not None:
                return _record(row)
        return None

    def insert(self, record: RecordRow, keys: Iterable[str]) -> None:
        """Add a record; from now on its keys lead to it, even if they led to another one before."""
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO build_records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(record.id, record.kind, record.snapshot, record.place, record.parent),
                    *(record.description, record.created, record.used, record.uses, record.size),
                ),
            )
            connection.executemany(_POINT, [(key, record.id) for key in keys])

    def point(self, key: str, record: str) -> None:
        """Let one more key lead to a record; if the record is gone, nothing happens."""
        self._db.execute(
            "INSERT INTO build_keys SELECT ?, id FROM build_records WHERE id = ? "
            "ON CONFLICT (key) DO UPDATE SET record = excluded.record",
            (key, record),
        )

    def keys_of(self, record: str) -> list[str]:
        """The keys that lead to a record."""
        rows = self._db.all("SELECT key FROM build_keys WHERE record = ? ORDER BY key", (record,))
        return [row["key"] for row in rows]

    def touch(self, records: Iterable[str]) -> None:
        """Record that they were used just now."""
        now = time.time_ns()
        with self._db.transaction() as connection:
            connection.executemany(
                "UPDATE build_records SET used = ?, uses = uses + 1 WHERE id = ?",
                [(now, one) for one in records],
            )

    def get(self, record: str) -> RecordRow | None:
        row = self._db.one("SELECT * FROM build_records WHERE id = ?", (record,))
        return None if row is None else _record(row)

    def at(self, place: str) -> RecordRow | None:
        """The record whose files are in this directory."""
        row = self._db.one("SELECT * FROM build_records WHERE place = ?", (place,))
        return None if row is None else _record(row)

    def resize(self, record: str, size: int) -> None:
        self._db.execute("UPDATE build_records SET size = ? WHERE id = ?", (size, record))

    def all(self) -> list[RecordRow]:
        """Every record, the least recently used first; of those with the same time, children first."""
        return [
            _record(row)
            for row in self._db.all("SELECT * FROM build_records ORDER BY used, created DESC, id")
        ]

    def delete(self, record: str) -> None:
        self._db.execute("DELETE FROM build_records WHERE id = ?", (record,))

    def shared(self) -> set[str]:
        """Snapshots of records that images need as well."""
        rows = self._db.all(
            "SELECT DISTINCT snapshot FROM build_records "
            "WHERE snapshot IN (SELECT chain_id FROM image_snapshots)"
        )
        return {row["snapshot"] for row in rows}

    # layers

    def layer(self, chain_id: Digest, form: str) -> LayerRow | None:
        row = self._db.one("SELECT * FROM build_layers WHERE chain_id = ? AND form = ?", (chain_id, form))
        if row is None:
            return None
        return LayerRow(Digest(row["diff_id"]), Digest(row["digest"]), row["size"], row["media_type"])

    def put_layer(self, chain_id: Digest, form: str, layer: LayerRow) -> None:
        self._db.execute(
            "INSERT INTO build_layers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "digest = excluded.digest, size = excluded.size, media_type = excluded.media_type",
            (chain_id, form, layer.diff_id, layer.digest, layer.size, layer.media_type),
        )

    def forget_layers(self) -> None:
        """Delete the layers of snapshots that are gone."""
        self._db.execute("DELETE FROM build_layers WHERE chain_id NOT IN (SELECT key FROM snapshots)")

    # history

    def put_history(self, row: HistoryRow, *, keep: int) -> None:
        """Insert or replace a build; only the newest ``keep`` are kept."""
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO build_history VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "finished = excluded.finished, status = excluded.status, document = excluded.document",
                (row.id, row.started, row.finished, row.status, row.document),
            )
            connection.execute(
                "DELETE FROM build_history WHERE id NOT IN "
                "(SELECT id FROM build_history ORDER BY started DESC LIMIT ?)",
                (keep,),
            )

    def history(self) -> list[HistoryRow]:
        """Newest first."""
        return [
            HistoryRow(**dict(r)) for r in self._db.all("SELECT * FROM build_history ORDER BY started DESC")
        ]

    def history_of(self, wanted: str) -> HistoryRow:
        """By an id or its beginning. :raises NotFound: none, or several."""
        rows = self._db.all(
            "SELECT * FROM build_history WHERE substr(id, 1, ?) = ? LIMIT 2", (len(wanted), wanted)
        )
        if len(rows) != 1 or not wanted:
            raise NotFound(f"No such build: {wanted}")
        return HistoryRow(**dict(rows[0]))

    def keep_said(self, build: str, lines: Sequence[tuple[int, int, bytes]]) -> None:
        """Store what steps printed: a step's number, when (ns), the text."""
        if lines:
            data = zlib.compress(msgspec.msgpack.encode(lines), 1)
            self._db.execute(
                "INSERT INTO build_said SELECT id, ? FROM build_history WHERE id = ? "
                "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
                (data, build),
            )

    def said(self, build: str) -> list[tuple[int, int, bytes]]:
        row = self._db.one("SELECT data FROM build_said WHERE id = ?", (build,))
        return [] if row is None else from_msgpack(zlib.decompress(row["data"]), list[tuple[int, int, bytes]])

    def delete_history(self, build: str) -> None:
        self._db.execute("DELETE FROM build_history WHERE id = ?", (build,))

    def end_history(self) -> None:
        """End the builds that were running when the daemon was killed."""
        self._db.execute(
            "UPDATE build_history SET status = 'Interrupted', finished = started WHERE finished = 0"
        )


_POINT = "INSERT INTO build_keys VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET record = excluded.record"


def _record(row: Row) -> RecordRow:
    return RecordRow(**dict(row))
