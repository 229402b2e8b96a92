"""Rows of accounts, tokens, signing keys, revocations and grants."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wherry.errors import Conflict, NotFound
from wherry.hub.core import names
from wherry.hub.store.sql import Broken, Row, Tx, now


@dataclass(frozen=True)
class Account:
    id: int
    name: str
    password: str
    admin: bool
    active: bool
    second_factor: bool = False
    """Whether a password alone is not enough for it; programs use tokens then."""


@dataclass(frozen=True)
class Token:
    """A credential of an account: ``personal`` or ``refresh``."""

    id: int
    account: Account
    kind: str
    scope: str
    patterns: tuple[str, ...]
    last_used: int | None


@dataclass(frozen=True)
class TokenLine:
    """A token as its owner sees it."""

    id: int
    name: str
    prefix: str
    scope: str
    patterns: str
    created: int
    expires: int | None
    last_used: int | None


_ACCOUNT = "a.id, a.name, a.password, a.admin, a.active, a.second_factor"


def add(tx: Tx, name: str, password: str, *, admin: bool, email: str | None = None) -> int:
    """Create an account and the namespace with its name. :returns: its id.

    :raises Conflict: the name is in use, or too similar to an existing one.
    """
    try:
        row = tx.one(
            "INSERT INTO account (name, folded, email, password, admin, active, created)"
            " VALUES (?, ?, ?, ?, ?, TRUE, ?) ON CONFLICT DO NOTHING RETURNING id",
            name, names.folded(name), email, password, admin, now(),
        )  # fmt: skip
        if row is None:
            raise Conflict(f"name {name!r}, a similar name, or the e-mail address is already in use")
        tx.run("INSERT INTO namespace (name, owner_id, created) VALUES (?, ?, ?)", name, int(row[0]), now())
    except Broken as e:
        raise Conflict(f"namespace {name!r} already exists") from e
    return int(row[0])


def by_name(tx: Tx, name: str) -> Account | None:
    row = tx.one(f"SELECT {_ACCOUNT} FROM account a WHERE a.name = ?", name)
    return _account(row) if row else None


def _account(row: Row) -> Account:
    return Account(int(row[0]), row[1], row[2], bool(row[3]), bool(row[4]), bool(row[5]))


def is_taken(tx: Tx, name: str) -> bool:
    """Whether a name, or one that looks like it, belongs to an account or a namespace."""
    row = tx.one(
        "SELECT 1 FROM account WHERE folded = ? UNION ALL SELECT 1 FROM namespace WHERE name = ?",
        names.folded(name), name,
    )  # fmt: skip
    return row is not None


def by_id(tx: Tx, account: int) -> Account | None:
    row = tx.one(f"SELECT {_ACCOUNT} FROM account a WHERE a.id = ?", account)
    return _account(row) if row else None


def needed(tx: Tx, name: str) -> Account:
    """:raises NotFound:"""
    found = by_name(tx, name)
    if found is None:
        raise NotFound(f"no such account: {name}")
    return found


def all_of(tx: Tx) -> list[tuple[str, bool, bool, int]]:
    """For each account: name, whether it is an administrator, whether it is active, time of creation."""
    rows = tx.all("SELECT name, admin, active, created FROM account ORDER BY name")
    return [(row[0], bool(row[1]), bool(row[2]), int(row[3])) for row in rows]


def set_password(tx: Tx, name: str, password: str) -> None:
    account = needed(tx, name)
    tx.run("UPDATE account SET password = ? WHERE id = ?", password, account.id)
    end_logins(tx, account.id)


def end_logins(tx: Tx, account: int) -> None:
    """End what clients got for the password: bearer tokens, and the refresh tokens that they keep. Personal
    tokens stay."""
    tx.run("DELETE FROM token WHERE account_id = ? AND kind = 'refresh'", account)
    revoke(tx, f"account:{account}")


def rehash(tx: Tx, account: int, before: str, password: str) -> None:
    """Replace the hash of a password by a stronger hash of the same password."""
    tx.run("UPDATE account SET password = ? WHERE id = ? AND password = ?", password, account, before)


def set_active(tx: Tx, name: str, active: bool) -> None:
    """Block or unblock an account. Its tokens become invalid within seconds."""
    account = needed(tx, name)
    tx.run("UPDATE account SET active = ? WHERE id = ?", active, account.id)
    revoke(tx, f"account:{account.id}")


def set_admin(tx: Tx, name: str, admin: bool) -> None:
    account = needed(tx, name)
    tx.run("UPDATE account SET admin = ? WHERE id = ?", admin, account.id)
    revoke(tx, f"account:{account.id}")


def set_second_factor(tx: Tx, account: int, needed: bool) -> None:
    """Note whether the account has a second factor. If it has one now, what clients got for the password
    alone becomes invalid."""
    tx.run("UPDATE account SET second_factor = ? WHERE id = ?", needed, account)
    if needed:
        end_logins(tx, account)


def close(tx: Tx, account: int) -> None:
    """The person leaves: nothing personal stays but the name, which nobody else can take.

    :raises Conflict: the account is the only owner of an organisation.
    """
    sole = tx.one(
        "SELECT n.name FROM org_member m JOIN namespace n ON n.id = m.namespace_id WHERE m.account_id = ?"
        " AND m.role = 'owner' AND NOT EXISTS (SELECT 1 FROM org_member o WHERE"
        " o.namespace_id = m.namespace_id AND o.role = 'owner' AND o.account_id <> m.account_id)",
        account,
    )
    if sole is not None:
        raise Conflict(f"you are the only owner of {sole[0]}: make somebody else an owner, or delete it")
    for table in ("token", "access_grant", "org_member", "team_member"):
        tx.run(f"DELETE FROM {table} WHERE account_id = ?", account)
    tx.run(
        "UPDATE account SET email = NULL, password = '', active = FALSE, admin = FALSE, second_factor ="
        " FALSE,"
        " deleted = ? WHERE id = ?",
        now(), account,
    )  # fmt: skip
    tx.run("UPDATE namespace SET title = '', about = '', link = '' WHERE owner_id = ?", account)
    tx.run(
        "UPDATE repository SET deleted = ? WHERE deleted IS NULL AND namespace_id IN"
        " (SELECT id FROM namespace WHERE owner_id = ?)",
        now(), account,
    )  # fmt: skip
    revoke(tx, f"account:{account}")


def add_token(
    tx: Tx, account: int, *, kind: str, name: str, hashed: str, prefix: str, scope: str,
    patterns: tuple[str, ...] = (), expires: int | None = None, address: str = "",
) -> int:  # fmt: skip
    row = tx.one(
        "INSERT INTO token (account_id, kind, name, hash, prefix, scope, patterns, created, expires, address)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        account, kind, name, hashed, prefix, scope, " ".join(patterns), now(), expires, address,
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def token_by_hash(tx: Tx, hashed: str) -> Token | None:
    """A valid token: not expired, and its account is not blocked."""
    row = tx.one(
        f"SELECT {_ACCOUNT}, t.id, t.kind, t.scope, t.patterns, t.last_used"
        " FROM token t JOIN account a ON a.id = t.account_id"
        " WHERE t.hash = ? AND (t.expires IS NULL OR t.expires > ?) AND a.active",
        hashed, now(),
    )  # fmt: skip
    if row is None:
        return None
    return Token(int(row[6]), _account(row), row[7], row[8], tuple(row[9].split()), row[10])


def tokens_of(tx: Tx, account: int, kind: str = "personal") -> list[TokenLine]:
    rows = tx.all(
        "SELECT id, name, prefix, scope, patterns, created, expires, last_used FROM token"
        " WHERE account_id = ? AND kind = ? ORDER BY id",
        account, kind,
    )  # fmt: skip
    return [TokenLine(*row) for row in rows]


def touch_token(tx: Tx, token: int) -> None:
    tx.run("UPDATE token SET last_used = ? WHERE id = ?", now(), token)


def remove_token(tx: Tx, account: int, token: int) -> None:
    """:raises NotFound: the account has no such token."""
    if not tx.run("DELETE FROM token WHERE id = ? AND account_id = ?", token, account):
        raise NotFound(f"no such token: {token}")
    revoke(tx, f"token:{token}")


def revoke(tx: Tx, subject: str) -> None:
    """Revoke all existing bearer tokens of a subject; every replica applies this within seconds."""
    tx.run("INSERT INTO revocation (subject, not_before) VALUES (?, ?)", subject, time.time())


def revocations(tx: Tx, after: int) -> list[tuple[int, str, float]]:
    """Revocations after id ``after``: id, subject and time."""
    rows = tx.all("SELECT id, subject, not_before FROM revocation WHERE id > ? ORDER BY id", after)
    return [(int(row[0]), row[1], float(row[2])) for row in rows]


def forget_revocations(tx: Tx, before: float) -> int:
    return tx.run("DELETE FROM revocation WHERE not_before < ?", before)


def signing_keys(tx: Tx) -> list[tuple[str, str]]:
    """The id and the private key (PEM) of each signing key, newest first."""
    return [
        (row[0], row[1]) for row in tx.all("SELECT kid, private FROM signing_key ORDER BY created DESC, kid")
    ]


def add_signing_key(tx: Tx, kid: str, private: str) -> None:
    tx.run("INSERT INTO signing_key (kid, private, created) VALUES (?, ?, ?)", kid, private, time.time())


def drop_signing_keys(tx: Tx, keep: int) -> None:
    """Delete all signing keys except the ``keep`` newest."""
    for kid, _ in signing_keys(tx)[keep:]:
        tx.run("DELETE FROM signing_key WHERE kid = ?", kid)
