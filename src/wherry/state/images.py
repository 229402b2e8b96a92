"""Images, their names, and every move of a name.

images(target, media_type, size, created, updated)
    target      digest of a manifest or an index; an image without a name is kept here too ("dangling")
    size        of the target blob, bytes
    created     when this store first saw it; updated: when a name last came or went; nanoseconds
image_names(name, target, updated)
    name        normalised with its tag: docker.io/library/busybox:latest
image_history(seq, time, name, old, new, actor, why)
    one row for every move of a name; old and new are targets, '' for none
image_content(target, digest, role)
    everything the target reaches, present or not; role: index, manifest, config, layer, other; and what
    refers to it and came with it: referrer, referrer-part
image_snapshots(target, chain_id)
    the layer chains of its images, unpacked or not
Both closures keep content and snapshots from the collector, and make sizes one query.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from wherry.model.digest import Digest
from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE images (
    target TEXT PRIMARY KEY,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE image_names (
    name TEXT PRIMARY KEY,
    target TEXT NOT NULL REFERENCES images (target),
    updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX image_names_by_target ON image_names (target);
CREATE TABLE image_history (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    name TEXT NOT NULL,
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    actor TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE INDEX image_history_by_name ON image_history (name, seq);
CREATE TABLE image_content (
    target TEXT NOT NULL REFERENCES images (target) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (target, digest)
) WITHOUT ROWID;
CREATE INDEX image_content_by_digest ON image_content (digest);
CREATE TABLE image_snapshots (
    target TEXT NOT NULL REFERENCES images (target) ON DELETE CASCADE,
    chain_id TEXT NOT NULL,
    PRIMARY KEY (target, chain_id)
) WITHOUT ROWID;
CREATE INDEX image_snapshots_by_chain ON image_snapshots (chain_id);
"""


@dataclass(frozen=True)
class ImageRow:
    """Times in nanoseconds since the epoch; ``size`` is the target blob's, in bytes."""

    target: Digest
    media_type: str
    size: int
    created: int
    updated: int


@dataclass(frozen=True)
class NameMove:
    """One move of a name; ``old`` or ``new`` is empty when the name came or went."""

    time: int
    name: str
    old: str
    new: str
    actor: str
    why: str


@dataclass(frozen=True)
class Sizes:
    """Bytes: ``content`` of the blobs that are here, ``unpacked`` of the snapshots that are here."""

    content: int
    unpacked: int

    @property
    def total(self) -> int:
        return self.content + self.unpacked


class Images:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put(
        self,
        row: tuple[Digest, str, int],
        content: Iterable[tuple[Digest, str]],
        chain_ids: Iterable[Digest],
    ) -> None:
        """Insert an image ``(target, media type,
        size)`` with everything that it refers to, or update that."""
        target, media_type, size = row
        now = time.time_ns()
        with self._db.transaction(growing=True) as connection:
            connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (target, media_type, size, now, now),
            )
            connection.executemany(
                "INSERT INTO image_content VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(target, digest, role) for digest, role in content],
            )
            connection.executemany(
                "INSERT INTO image_snapshots VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(target, chain) for chain in chain_ids],
            )

    def add_content(self, target: Digest, content: Iterable[tuple[Digest, str]]) -> None:
        """Keep further content with an image, besides what it refers to."""
        with self._db.transaction(growing=True) as connection:
            connection.executemany(
                "INSERT INTO image_content SELECT ?, ?, ? WHERE EXISTS "
                "(SELECT 1 FROM images WHERE target = ?) ON CONFLICT DO NOTHING",
                [(target, digest, role, target) for digest, role in content],
            )

    def content_with(self, target: Digest, role: str) -> list[Digest]:
        """An image's content with this role."""
        rows = self._db.all(
            "SELECT digest FROM image_content WHERE target = ? AND role = ? ORDER BY digest", (target, role)
        )
        return [Digest(row["digest"]) for row in rows]

    def forget_content(self, target: Digest, digests: Iterable[Digest]) -> None:
        """Stop keeping blobs that an image refers to but does not need here."""
        with self._db.transaction() as connection:
            connection.executemany(
                "DELETE FROM image_content WHERE target = ? AND digest = ?",
                [(target, digest) for digest in digests],
            )

    def forget_snapshots(self, target: Digest, chain_ids: Iterable[Digest]) -> None:
        """Stop keeping layers that an image has but does not need here."""
        with self._db.transaction() as connection:
            connection.executemany(
                "DELETE FROM image_snapshots WHERE target = ? AND chain_id = ?",
                [(target, chain) for chain in chain_ids],
            )

    def get(self, target: Digest) -> ImageRow | None:
        row = self._db.one("SELECT * FROM images WHERE target = ?", (target,))
        return None if row is None else _image(row)

    def all(self) -> list[ImageRow]:
        """Every image, the one last touched first."""
        return [_image(r) for r in self._db.all("SELECT * FROM images ORDER BY created DESC, target")]

    def delete(self, target: Digest) -> bool:
        """Delete an image without names; ``False`` if there was none."""
        return self._db.execute("DELETE FROM images WHERE target = ?", (target,)) > 0

    def target_of(self, name: str) -> Digest | None:
        row = self._db.one("SELECT target FROM image_names WHERE name = ?", (name,))
        return None if row is None else Digest(row["target"])

    def names(self) -> list[tuple[str, Digest]]:
        """Every name with its target, in alphabetical order."""
        rows = self._db.all("SELECT name, target FROM image_names ORDER BY name")
        return [(row["name"], Digest(row["target"])) for row in rows]

    def names_of(self, target: Digest) -> list[str]:
        rows = self._db.all("SELECT name FROM image_names WHERE target = ? ORDER BY name", (target,))
        return [row["name"] for row in rows]

    def names_with(self, digest: Digest) -> list[str]:
        """Names of every image that refers to a blob."""
        rows = self._db.all(
            "SELECT n.name AS name FROM image_content AS c JOIN image_names AS n ON n.target = c.target "
            "WHERE c.digest = ? ORDER BY n.name",
            (digest,),
        )
        return [row["name"] for row in rows]

    def pulled_with(self, digest: Digest) -> list[str]:
        """Names under which an image that refers to a blob was pulled, the last one first."""
        rows = self._db.all(
            "SELECT h.name AS name, MAX(h.seq) AS last FROM image_content AS c "
            "JOIN image_history AS h ON h.new = c.target WHERE c.digest = ? AND h.why = 'pull' "
            "GROUP BY h.name ORDER BY last DESC",
            (digest,),
        )
        return [row["name"] for row in rows]

    def move(self, name: str, target: Digest | None, *, actor: str, why: str) -> Digest | None:
        """Point ``name`` to ``target`` (``None``: remove it), record that, and return the earlier target."""
        now = time.time_ns()
        with self._db.transaction() as connection:
            old = self.target_of(name)
            if target is None:
                connection.execute("DELETE FROM image_names WHERE name = ?", (name,))
            else:
                connection.execute(
                    "INSERT INTO image_names VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET target = excluded.target, updated = excluded.updated",
                    (name, target, now),
                )
            connection.execute(
                "UPDATE images SET updated = ? WHERE target IN (?, ?)", (now, old or "", target or "")
            )
            if old != target:
                connection.execute(
                    "INSERT INTO image_history (time, name, old, new, actor, why) VALUES (?, ?, ?, ?, ?, ?)",
                    (now, name, old or "", target or "", actor, why),
                )
            return old

    def moves(self, name: str) -> list[NameMove]:
        """Every move of ``name``, oldest first."""
        rows = self._db.all(
            "SELECT time, name, old, new, actor, why FROM image_history WHERE name = ? ORDER BY seq", (name,)
        )
        return [NameMove(**dict(row)) for row in rows]

    def names_moved_since(self, moment: int) -> list[str]:
        """Names that moved at or after ``moment`` (nanoseconds), in alphabetical order."""
        rows = self._db.all(
            "SELECT DISTINCT name FROM image_history WHERE time >= ? ORDER BY name", (moment,)
        )
        return [row["name"] for row in rows]

    def targets_with_prefix(self, prefix: str) -> list[Digest]:
        """Targets whose hex digits start with ``prefix``, at most two."""
        low = f"sha256:{prefix}"
        rows = self._db.all(
            "SELECT target FROM images WHERE target >= ? AND target < ? LIMIT 2", (low, low + "g")
        )
        return [Digest(row["target"]) for row in rows]

    def targets_with_part(self, prefix: str) -> list[Digest]:
        """Targets that refer to a manifest or a config whose hex digits start with ``prefix``."""
        low = f"sha256:{prefix}"
        rows = self._db.all(
            "SELECT DISTINCT target FROM image_content WHERE digest >= ? AND digest < ? "
            "AND role IN ('config', 'manifest') LIMIT 2",
            (low, low + "g"),
        )
        return [Digest(row["target"]) for row in rows]

    def sizes(self, driver: str) -> dict[Digest, Sizes]:
        """Bytes of every image's blobs and snapshots that are here."""
        content = self._db.all(
            "SELECT i.target AS target, SUM(c.size) AS size FROM image_content AS i "
            "JOIN content AS c ON c.digest = i.digest GROUP BY i.target"
        )
        unpacked = self._db.all(
            "SELECT i.target AS target, SUM(s.size) AS size FROM image_snapshots AS i "
            "JOIN snapshots AS s ON s.key = i.chain_id AND s.driver = ? GROUP BY i.target",
            (driver,),
        )
        parts = {row["target"]: row["size"] for row in unpacked}
        return {Digest(r["target"]): Sizes(r["size"], parts.pop(r["target"], 0)) for r in content}

    def shared_sizes(self, driver: str) -> dict[Digest, int]:
        """Bytes of every image's layers (blobs and snapshots) that another image has too."""
        rows = self._db.all(
            "SELECT i.target AS target, SUM(c.size) AS size FROM image_content AS i "
            "JOIN content AS c ON c.digest = i.digest WHERE i.role = 'layer' AND EXISTS ("
            " SELECT 1 FROM image_content AS o WHERE o.digest = i.digest AND o.target != i.target"
            ") GROUP BY i.target UNION ALL "
            "SELECT i.target, SUM(s.size) FROM image_snapshots AS i "
            "JOIN snapshots AS s ON s.key = i.chain_id AND s.driver = ? WHERE EXISTS ("
            " SELECT 1 FROM image_snapshots AS o WHERE o.chain_id = i.chain_id AND o.target != i.target"
            ") GROUP BY i.target",
            (driver,),
        )
        shared: dict[Digest, int] = {}
        for row in rows:
            shared[Digest(row["target"])] = shared.get(Digest(row["target"]), 0) + row["size"]
        return shared

    def layers_total(self, driver: str, targets: Collection[str] | None = None) -> int:
        """Bytes of all blobs and snapshots that any image (or any
        of ``targets``) refers to, each counted once."""
        of = "" if targets is None else " WHERE target IN (SELECT value FROM json_each(?))"
        wanted = () if targets is None else (json.dumps(sorted(targets)),)
        row = self._db.one(
            "SELECT (SELECT COALESCE(SUM(size), 0) FROM content WHERE digest IN "
            f"(SELECT digest FROM image_content{of})) + (SELECT COALESCE(SUM(size), 0) FROM snapshots "
            f"WHERE driver = ? AND key IN (SELECT chain_id FROM image_snapshots{of})) AS total",
            (*wanted, driver, *wanted),
        )
        return 0 if row is None else int(row["total"])


def _image(row: Row) -> ImageRow:
    return ImageRow(row["target"], row["media_type"], row["size"], row["created"], row["updated"])
