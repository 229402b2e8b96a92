"""Accounts by their owners and by administrators: tokens, export, the end of an account; what administrators
do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.auth import secrets
from wherry.hub.core import globs, rights
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import accounts, events, profiles, reports, repositories, site, stars
from wherry.hub.store.accounts import TokenLine
from wherry.hub.store.events import EventFilter
from wherry.hub.store.sql import Tx, now

TOKENS_MAX = 100
DAYS_MAX = 3650


def tokens(tx: Tx, caller: HubCaller) -> list[TokenLine]:
    return accounts.tokens_of(tx, who.full(caller).account)


def create_token(
    tx: Tx, caller: HubCaller, name: str, scope: str, patterns: tuple[str, ...], days: int | None
) -> str:
    """:param days: None: it does not expire. :returns: the token, which is shown once.

    :raises Refusal: :raises InvalidArgument:
    """
    who.full(caller)
    if scope not in rights.SCOPES:
        raise InvalidArgument(f"no such scope: {scope[:40]!r}")
    if days is not None and not 0 < days <= DAYS_MAX:
        raise InvalidArgument(f"days: use 1 to {DAYS_MAX}")
    if len(patterns) > 20:
        raise InvalidArgument("at most 20 patterns of repositories")
    for pattern in patterns:
        globs.check(pattern)
    if len(tokens(tx, caller)) >= TOKENS_MAX:
        raise InvalidArgument(f"at most {TOKENS_MAX} tokens: revoke some of them")
    secret = secrets.make()
    made = accounts.add_token(
        tx, caller.account, kind="personal", name=profiles.clean("title", name),
        hashed=secrets.hashed(secret),
        prefix=secrets.shown(secret), scope=scope, patterns=patterns,
        expires=now() + days * 86400 if days is not None else None, address=caller.address,
    )  # fmt: skip
    caller.note(tx, "token.create", account=caller.name, token=made, scope=scope)
    return secret


def remove_token(tx: Tx, caller: HubCaller, number: int) -> None:
    """:raises Refusal: :raises NotFound: the caller has no such token."""
    accounts.remove_token(tx, who.full(caller).account, number)
    caller.note(tx, "token.revoke", account=caller.name, token=number)


def _day(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds is not None else None


def export(tx: Tx, caller: HubCaller) -> dict[str, Any]:
    """All that the hub knows about the caller's account, without secrets."""
    account = who.full(caller).account
    row = tx.one("SELECT name, email, admin, created FROM account WHERE id = ?", account)
    assert row is not None
    own = profiles.namespace(tx, caller.name)
    return {
        "account": {"name": row[0], "email": row[1], "administrator": bool(row[2]), "created": _day(row[3])},
        "profile": {"title": own.title, "about": own.about, "link": own.link} if own else {},
        "namespaces": [{"name": name, "role": role} for name, role in profiles.spaces_of(tx, account)],
        "repositories": [
            {"name": one[0], "public": bool(one[1]), "description": one[2], "readme": one[3], "pulls": one[4]}
            for one in tx.all(
                "SELECT r.name, r.public, r.description, r.readme, r.pulls FROM repository r JOIN namespace n"
                " ON n.id = r.namespace_id WHERE n.owner_id = ? AND r.deleted IS NULL ORDER BY r.name",
                account,
            )
        ],
        "tokens": [
            {"name": t.name, "begins": t.prefix, "scope": t.scope, "repositories": t.patterns,
             "created": _day(t.created), "expires": _day(t.expires), "last_used": _day(t.last_used)}
            for t in tokens(tx, caller)
        ],
        "stars": [
            one[0]
            for one in tx.all(
                "SELECT r.name FROM star s JOIN repository r ON r.id = s.repository_id"
                " WHERE s.account_id = ? AND r.deleted IS NULL ORDER BY r.name",
                account,
            )
        ],
        "events": [
            {"at": _day(e.at), "action": e.action, "repository": e.repository, "address": e.address,
             "detail": e.detail}
            for e in events.page(tx, EventFilter(actor=caller.name), count=10_000)
        ],
    }  # fmt: skip


def close(tx: Tx, caller: HubCaller) -> None:
    """Delete the caller's account and its repositories.

    :raises Conflict: it is the only owner of an organisation. :raises Refusal:
    """
    account = who.full(caller).account
    stars.forget(tx, account)
    accounts.close(tx, account)
    caller.note(tx, "account.close", account=caller.name)


def _other(tx: Tx, caller: HubCaller, name: str) -> accounts.Account:
    found = accounts.needed(tx, name)
    if found.id == who.administrator(caller).account:
        raise InvalidArgument("you cannot do this to your own account")
    row = tx.one("SELECT deleted FROM account WHERE id = ?", found.id)
    if row is not None and row[0] is not None:
        raise NotFound(f"account {name} was deleted by its owner")
    return found


def set_active(tx: Tx, caller: HubCaller, name: str, active: bool) -> None:
    """Block or unblock an account. :raises Refusal: :raises NotFound: :raises InvalidArgument:"""
    _other(tx, caller, name)
    accounts.set_active(tx, name, active)
    caller.note(tx, "account.unblock" if active else "account.block", account=name)


def set_admin(tx: Tx, caller: HubCaller, name: str, admin: bool) -> None:
    """:raises Refusal: :raises NotFound: :raises InvalidArgument:"""
    _other(tx, caller, name)
    accounts.set_admin(tx, name, admin)
    caller.note(tx, "account.promote" if admin else "account.demote", account=name)


def set_banner(tx: Tx, caller: HubCaller, text: str) -> None:
    """A line on every page; empty: none. :raises Refusal: :raises InvalidArgument:"""
    who.administrator(caller)
    site.put(tx, site.BANNER, profiles.clean("description", text))
    caller.note(tx, "site.banner")


def close_report(tx: Tx, caller: HubCaller, number: int) -> None:
    """:raises Refusal: :raises NotFound:"""
    who.administrator(caller)
    repository = reports.close(tx, number, caller.name)
    caller.note(tx, "report.close", report=number, about=repository)


def set_quota(tx: Tx, caller: HubCaller, namespace: str, quota: int | None) -> None:
    """:param quota: bytes; None: no limit. :raises Refusal: :raises NotFound: :raises InvalidArgument:"""
    who.administrator(caller)
    if quota is not None and not 0 <= quota < 2**62:
        raise InvalidArgument("quota: use a number of bytes")
    repositories.set_quota(tx, namespace, quota)
    caller.note(tx, "namespace.quota", namespace=namespace, quota=quota)
