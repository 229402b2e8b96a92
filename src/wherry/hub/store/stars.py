"""Rows of stars and follows: what people like, and what they want to hear about."""

from __future__ import annotations

from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.sql import Tx, now


def star(tx: Tx, account: int, repository: RepositoryRow, on: bool) -> None:
    """Star a repository, or take the star away. Repeating it changes nothing."""
    if on:
        changed = tx.run(
            "INSERT INTO star (account_id, repository_id, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            account, repository.id, now(),
        )  # fmt: skip
    else:
        changed = tx.run(
            "DELETE FROM star WHERE account_id = ? AND repository_id = ?", account, repository.id
        )
    if changed:
        tx.run("UPDATE repository SET stars = stars + ? WHERE id = ?", 1 if on else -1, repository.id)


def is_starred(tx: Tx, account: int, repository: int) -> bool:
    return (
        tx.one("SELECT 1 FROM star WHERE account_id = ? AND repository_id = ?", account, repository)
        is not None
    )


def _column(of_namespace: bool) -> str:
    return "namespace_id" if of_namespace else "repository_id"


def follow(tx: Tx, account: int, number: int, on: bool, *, namespace: bool = False) -> None:
    """Follow a repository or a namespace, or stop. Repeating it changes nothing."""
    column = _column(namespace)
    if on:
        tx.run(
            f"INSERT INTO follow (account_id, {column}, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            account, number, now(),
        )  # fmt: skip
    else:
        tx.run(f"DELETE FROM follow WHERE account_id = ? AND {column} = ?", account, number)


def is_followed(tx: Tx, account: int, number: int, *, namespace: bool = False) -> bool:
    return (
        tx.one(f"SELECT 1 FROM follow WHERE account_id = ? AND {_column(namespace)} = ?", account, number)
        is not None
    )


def followers(tx: Tx, number: int, *, namespace: bool = False) -> int:
    row = tx.one(f"SELECT count(*) FROM follow WHERE {_column(namespace)} = ?", number)
    return int(row[0]) if row is not None else 0


def forget(tx: Tx, account: int) -> None:
    """Take back all stars and follows of an account."""
    tx.run(
        "UPDATE repository SET stars = stars - 1 WHERE id IN"
        " (SELECT repository_id FROM star WHERE account_id = ?)",
        account,
    )
    tx.run("DELETE FROM star WHERE account_id = ?", account)
    tx.run("DELETE FROM follow WHERE account_id = ?", account)
