"""Rows of uploads. One request at a time writes to an upload: it holds a lease for some seconds and renews
it. If its replica dies, the lease expires, and the next request continues from the recorded state."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from wherry.hub.core.refusals import Refusal
from wherry.hub.store import content, repositories
from wherry.hub.store.objects import new_key
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx, now


@dataclass(frozen=True)
class Upload:
    """:ivar received: the number of recorded bytes. :ivar prefix: their digest; empty if unknown."""

    id: str
    repository: int
    algorithm: str
    received: int
    prefix: str
    key: str
    state: str
    leased: bool


def begin(tx: Tx, name: str, account: int | None, algorithm: str, settings: HubSettings) -> Upload:
    """:raises Refusal: the repository has too many open uploads."""
    repository = repositories.ensure(tx, name, settings)
    row = tx.one("SELECT count(*) FROM upload WHERE repository_id = ?", repository.id)
    if row is not None and row[0] >= settings.uploads_max:
        raise Refusal(
            "TOOMANYREQUESTS",
            f"{name} already has {row[0]} open uploads, which is the maximum",
            headers={"Retry-After": "60"},
        )
    made = Upload(secrets.token_hex(16), repository.id, algorithm, 0, "", new_key(), "", False)
    tx.run(
        "INSERT INTO upload (id, repository_id, account_id, algorithm, storage_key, created, expires)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        made.id, repository.id, account, algorithm, made.key, now(), now() + settings.upload,
    )  # fmt: skip
    return made


def find(tx: Tx, name: str, upload: str, account: int | None) -> Upload:
    """:raises Refusal: ``BLOB_UPLOAD_UNKNOWN``: it does not exist, or belongs to another account."""
    row = tx.one(
        "SELECT u.repository_id, u.algorithm, u.received, u.prefix_digest, u.storage_key, u.state,"
        " u.lease_until"
        " FROM upload u JOIN repository r ON r.id = u.repository_id"
        " WHERE u.id = ? AND r.name = ? AND r.deleted IS NULL AND u.expires > ?"
        " AND (u.account_id IS NULL OR u.account_id = ?)",
        upload, name, now(), account,
    )  # fmt: skip
    if row is None:
        raise unknown(upload)
    return Upload(
        upload, int(row[0]), row[1], int(row[2]), row[3], row[4], row[5], leased=int(row[6]) > now()
    )


def unknown(upload: str) -> Refusal:
    return Refusal("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", detail={"id": upload[:40]})


def lease(tx: Tx, upload: Upload, owner: str, settings: HubSettings) -> bool:
    """Take the lease, if it is free and the upload has not changed meanwhile."""
    moment = now()
    changed = tx.run(
        "UPDATE upload SET lease_owner = ?, lease_until = ?, expires = ?"
        " WHERE id = ? AND received = ? AND (lease_owner = '' OR lease_until <= ?)",
        owner,
        moment + settings.lease,
        moment + settings.upload,
        upload.id,
        upload.received,
        moment,
    )  # fmt: skip
    return bool(changed)


def renew(tx: Tx, upload: str, owner: str, settings: HubSettings) -> bool:
    """Renew the lease. :returns: whether it is still ours."""
    moment = now()
    changed = tx.run(
        "UPDATE upload SET lease_until = ?, expires = ? WHERE id = ? AND lease_owner = ?",
        moment + settings.lease,
        moment + settings.upload,
        upload,
        owner,
    )  # fmt: skip
    return bool(changed)


def record(tx: Tx, upload: str, owner: str, received: int, prefix: str, state: str) -> bool:
    """Record the durable bytes and release the lease. :returns: whether it was still ours."""
    changed = tx.run(
        "UPDATE upload SET received = ?, prefix_digest = ?, state = ?, lease_owner = '', lease_until = 0"
        " WHERE id = ? AND lease_owner = ?",
        received,
        prefix,
        state,
        upload,
        owner,
    )  # fmt: skip
    return bool(changed)


def let_go(tx: Tx, upload: str, owner: str) -> None:
    tx.run(
        "UPDATE upload SET lease_owner = '', lease_until = 0 WHERE id = ? AND lease_owner = ?", upload, owner
    )


def finish(
    tx: Tx, name: str, upload: Upload, owner: str, digest: str, size: int, settings: HubSettings
) -> None:
    """The upload's object is complete: it becomes the blob ``digest`` of its repository.

    :raises Refusal: the upload is no longer ours, or the quota is exceeded.
    """
    if not tx.run("DELETE FROM upload WHERE id = ? AND lease_owner = ?", upload.id, owner):
        raise unknown(upload.id)
    repository = repositories.needed(tx, name)
    if repository.id != upload.repository:
        raise repositories.unknown(name)
    content.add(tx, repository, digest, size, upload.key, settings)


def drop(tx: Tx, upload: str, owner: str) -> bool:
    """Delete the row of an upload whose object has been discarded."""
    return bool(tx.run("DELETE FROM upload WHERE id = ? AND lease_owner = ?", upload, owner))


def expired(tx: Tx, count: int) -> list[Upload]:
    """Uploads that nobody writes and that were idle too long or whose repository was deleted."""
    rows = tx.all(
        "SELECT u.id, u.repository_id, u.algorithm, u.received, u.prefix_digest, u.storage_key, u.state"
        " FROM upload u JOIN repository r ON r.id = u.repository_id"
        " WHERE (u.expires <= ? OR r.deleted IS NOT NULL) AND u.lease_until <= ? LIMIT ?",
        now(), now(), count,
    )  # fmt: skip
    return [Upload(row[0], int(row[1]), row[2], int(row[3]), row[4], row[5], row[6], False) for row in rows]
