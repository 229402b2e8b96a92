"""The caller's account, and what administrators see."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wherry.hub.api.routes import ROUTES, ApiAsk
from wherry.hub.service import accounts, who
from wherry.hub.store import events, profiles, reports, storage
from wherry.hub.store.events import EventFilter
from wherry.hub.store.sql import Tx


@ROUTES.add("GET", "/me")
def me(tx: Tx, ask: ApiAsk) -> Any:
    """Describe the caller: name, namespaces with roles, the limits of the credential."""
    one = ask.caller.principal
    return {
        "name": one.name, "administrator": one.admin, "scope": one.scope, "repositories": list(one.patterns),
        "namespaces": [{"name": n, "role": role} for n, role in profiles.spaces_of(tx, ask.caller.account)],
    }  # fmt: skip


@ROUTES.add("GET", "/tokens")
def tokens(tx: Tx, ask: ApiAsk) -> Any:
    """List the caller's tokens."""
    return {"tokens": [asdict(one) for one in accounts.tokens(tx, ask.caller)]}


@ROUTES.add("POST", "/tokens")
def create_token(tx: Tx, ask: ApiAsk) -> Any:
    """Create a token: name, scope, repositories, days (null: for ever). The answer has it, once."""
    secret = accounts.create_token(
        tx, ask.caller, ask.text("name", most=100), ask.text("scope", "read"), ask.texts("repositories"),
        ask.count("days"),
    )  # fmt: skip
    return {"token": secret}


@ROUTES.add("DELETE", "/tokens/{number}")
def remove_token(tx: Tx, ask: ApiAsk) -> Any:
    """Revoke a token."""
    accounts.remove_token(tx, ask.caller, ask.number)


@ROUTES.add("GET", "/admin/events")
def audit(tx: Tx, ask: ApiAsk) -> Any:
    """List events of the whole hub (administrators): actor, action, namespace, repository, before."""
    who.administrator(ask.caller)
    actor, action, namespace, repository = (
        ask.query.get(name, "") for name in ("actor", "action", "namespace", "repository")
    )
    wanted = EventFilter(repository, namespace, actor, action)
    found = events.page(tx, wanted, before=ask.before())
    return {"events": [asdict(one) for one in found]}


@ROUTES.add("GET", "/admin/storage")
def usage(tx: Tx, ask: ApiAsk) -> Any:
    """Report on storage (administrators)."""
    who.administrator(ask.caller)
    return asdict(storage.report(tx))


@ROUTES.add("GET", "/admin/reports")
def open_reports(tx: Tx, ask: ApiAsk) -> Any:
    """List open reports of abuse (administrators)."""
    who.administrator(ask.caller)
    return {"reports": [asdict(one) for one in reports.page(tx)]}


@ROUTES.add("POST", "/admin/reports/{number}/close")
def close_report(tx: Tx, ask: ApiAsk) -> Any:
    """Close a report of abuse (administrators)."""
    accounts.close_report(tx, ask.caller, ask.number)


@ROUTES.add("PUT", "/admin/accounts/{account}/active")
def set_active(tx: Tx, ask: ApiAsk) -> Any:
    """Block or unblock an account (administrators): active."""
    accounts.set_active(tx, ask.caller, ask.place("account"), ask.flag("active"))


@ROUTES.add("PUT", "/admin/accounts/{account}/administrator")
def set_admin(tx: Tx, ask: ApiAsk) -> Any:
    """Make an account an administrator, or a member again (administrators): administrator."""
    accounts.set_admin(tx, ask.caller, ask.place("account"), ask.flag("administrator"))
