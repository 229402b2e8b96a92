"""Rows of proxies: the other registries from which missing content is fetched, and the copies of it.

A repository of a proxy has blobs like any other repository; each is kept until ``HubSettings.proxy_keep``
seconds after its last pull. Its manifests are in a separate table, because they may name blobs that have not
been fetched yet. A pull of a manifest also extends the time of its blobs that are stored, so the collector
never removes only a part of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wherry.errors import Conflict, NotFound
from wherry.hub.core import names
from wherry.hub.store import repositories
from wherry.hub.store.manifests import StoredManifest
from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Row, Tx, now

MIRROR = ""
"""The namespace of the mirror: the proxy for every name that no repository of this hub has."""
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_USED = 3600
"""Seconds after a recorded pull in which further pulls are not recorded."""


@dataclass(frozen=True)
class Proxy:
    """:ivar realm: the token service that may also receive the password.
    :ivar ttl: seconds for which a tag is valid before the other registry is asked again.
    """

    id: int
    namespace: str
    url: str
    username: str
    password: str
    realm: str
    public: bool
    ttl: int

    def upstream_name(self, name: str) -> str:
        """The name of the repository ``name`` in the other registry."""
        inner = name if self.namespace == MIRROR else name.removeprefix(f"{self.namespace}/")
        host = self.url.partition("://")[2].partition("/")[0]
        # Docker Hub's official images are in "library", which users leave out.
        return f"library/{inner}" if host in _HUB and "/" not in inner else inner


_COLUMNS = "id, namespace, url, username, password, realm, public, ttl"


def _proxy(row: Row) -> Proxy:
    return Proxy(int(row[0]), row[1], row[2], row[3], row[4], row[5], bool(row[6]), int(row[7]))


def add(tx: Tx, made: Proxy) -> int:
    """:raises Conflict: the namespace already has a proxy, or belongs to an account or organisation."""
    space = made.namespace
    if tx.one("SELECT 1 FROM proxy WHERE namespace = ?", space) is not None:
        raise Conflict(f"a proxy for {describe(space)} already exists: remove it first")
    if space != MIRROR:
        row = tx.one(
            "SELECT 1 FROM namespace n WHERE n.name = ? AND (n.owner_id IS NOT NULL"
            " OR EXISTS (SELECT 1 FROM org_member m WHERE m.namespace_id = n.id)"
            " OR EXISTS (SELECT 1 FROM repository r WHERE r.namespace_id = n.id AND r.deleted IS NULL))",
            space,
        )
        if row is not None:
            raise Conflict(f"namespace {space!r} belongs to an account or organisation: choose another name")
        # From now on no account or organisation gets this name.
        tx.run("INSERT INTO namespace (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING", space, now())
    row = tx.one(
        "INSERT INTO proxy (namespace, url, username, password, realm, public, ttl, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        space, made.url, made.username, made.password, made.realm, made.public, made.ttl, now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def describe(namespace: str) -> str:
    return f"namespace {namespace!r}" if namespace != MIRROR else "all names that this hub does not have"


def all_of(tx: Tx) -> list[Proxy]:
    return [_proxy(row) for row in tx.all(f"SELECT {_COLUMNS} FROM proxy ORDER BY namespace")]


def remove(tx: Tx, namespace: str) -> int:
    """Remove a proxy and its copies. :returns: the number of removed repositories. :raises NotFound:"""
    row = tx.one("SELECT id FROM proxy WHERE namespace = ?", namespace)
    if row is None:
        raise NotFound(f"no proxy for {describe(namespace)}")
    tx.run("DELETE FROM proxy WHERE id = ?", row[0])
    return tx.run("UPDATE repository SET deleted = ? WHERE proxy_id = ? AND deleted IS NULL", now(), row[0])


def of(tx: Tx, name: str) -> Proxy | None:
    """The proxy for ``name``: that of its namespace, or the mirror. None if there is neither, or if ``name``
    is a repository of this hub."""
    row = tx.one("SELECT proxy_id FROM repository WHERE name = ? AND deleted IS NULL", name)
    if row is not None and row[0] is None:
        return None
    return _find(tx, names.namespace_of(name) or None) or _find(tx, MIRROR)


def _find(tx: Tx, namespace: str | None) -> Proxy | None:
    if namespace is None:
        return None
    row = tx.one(f"SELECT {_COLUMNS} FROM proxy WHERE namespace = ?", namespace)
    return _proxy(row) if row is not None else None


def ensure(tx: Tx, proxy: Proxy, name: str, settings: HubSettings) -> RepositoryRow:
    """The repository for copies; created if it does not exist.

    :raises Refusal: a repository of this hub with that name has been created meanwhile.
    """
    found = repositories.ensure(tx, name, replace(settings, public=proxy.public))
    changed = tx.run(
        "UPDATE repository SET proxy_id = ? WHERE id = ? AND (proxy_id IS NOT NULL OR pushed IS NULL)",
        proxy.id, found.id,
    )  # fmt: skip
    if not changed:
        raise repositories.unknown(name)
    return found


@dataclass(frozen=True)
class Tagged:
    """:ivar checked: when the other registry last confirmed the digest, in seconds since the epoch."""

    digest: str
    checked: int


def tag(tx: Tx, name: str, tag_: str) -> Tagged | None:
    row = tx.one(
        "SELECT t.digest, t.checked FROM proxy_tag t JOIN repository r ON r.id = t.repository_id"
        " WHERE r.name = ? AND r.deleted IS NULL AND t.name = ?",
        name, tag_,
    )  # fmt: skip
    return Tagged(row[0], int(row[1])) if row is not None else None


def tags(tx: Tx, name: str) -> list[str]:
    """All tags of which a copy is stored, in byte order."""
    rows = tx.all(
        "SELECT t.name FROM proxy_tag t JOIN repository r ON r.id = t.repository_id"
        " WHERE r.name = ? AND r.deleted IS NULL ORDER BY t.name",
        name,
    )
    return [row[0] for row in rows]


@dataclass(frozen=True)
class Copy:
    """:ivar used: the time of the last recorded pull, in seconds since the epoch."""

    stored: StoredManifest
    used: int


def manifest(tx: Tx, name: str, digest: str) -> Copy | None:
    row = tx.one(
        "SELECT m.repository_id, m.media_type, m.body, m.used FROM proxy_manifest m"
        " JOIN repository r ON r.id = m.repository_id"
        " WHERE r.name = ? AND r.deleted IS NULL AND m.digest = ?",
        name, digest,
    )  # fmt: skip
    if row is None:
        return None
    return Copy(StoredManifest(0, int(row[0]), digest, row[1], bytes(row[2])), int(row[3]))


def put(tx: Tx, repository: RepositoryRow, digest: str, media_type: str, body: bytes) -> None:
    tx.run(
        "INSERT INTO proxy_manifest (repository_id, digest, media_type, body, used) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type",
        repository.id, digest, media_type, body, now(),
    )  # fmt: skip


def checked(tx: Tx, repository: int, tag_: str, digest: str) -> None:
    """Record that ``tag_`` has ``digest`` in the other registry now."""
    tx.run(
        "INSERT INTO proxy_tag (repository_id, name, digest, checked) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (repository_id, name)"
        " DO UPDATE SET digest = excluded.digest, checked = excluded.checked",
        repository, tag_, digest, now(),
    )  # fmt: skip


def untag(tx: Tx, name: str, tag_: str) -> None:
    """Delete the copy of a tag, because the other registry has deleted the tag."""
    tx.run(
        "DELETE FROM proxy_tag WHERE name = ? AND repository_id IN"
        " (SELECT id FROM repository WHERE name = ? AND deleted IS NULL)",
        tag_, name,
    )  # fmt: skip


def is_worth_noting(used: int) -> bool:
    return used < now() - _USED


def note_use(tx: Tx, repository: int, digest: str, blobs: Sequence[str], settings: HubSettings) -> None:
    """Record a pull of a manifest: the times until which it and its blobs are kept start again."""
    tx.run(
        "UPDATE proxy_manifest SET used = ? WHERE repository_id = ? AND digest = ?", now(), repository, digest
    )
    until = now() + settings.proxy_keep
    for blob in blobs:
        tx.run(
            "UPDATE repository_blob SET keep_until = ? WHERE repository_id = ? AND keep_until < ?"
            " AND blob_id IN (SELECT id FROM blob WHERE digest = ?)",
            until, repository, until, blob,
        )  # fmt: skip


def forget(tx: Tx, settings: HubSettings, most: int = 500) -> int:
    """Delete manifests whose last pull is ``proxy_keep`` seconds ago, and their tags. The collector removes
    their blobs.

    :returns: the number of deleted manifests.
    """
    rows = tx.all(
        "SELECT repository_id, digest FROM proxy_manifest WHERE used < ? LIMIT ?",
        now() - settings.proxy_keep, most,
    )  # fmt: skip
    for repository, digest in rows:
        tx.run("DELETE FROM proxy_tag WHERE repository_id = ? AND digest = ?", repository, digest)
        tx.run("DELETE FROM proxy_manifest WHERE repository_id = ? AND digest = ?", repository, digest)
    return len(rows)
