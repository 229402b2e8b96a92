"""Repositories: created, described, shared, renamed, deleted; stars, follows and reports."""

from __future__ import annotations

from wherry.errors import Conflict
from wherry.hub.core import names, rights
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import accounts, aliases, profiles, reports, repositories, stars
from wherry.hub.store.sql import Tx


def create(tx: Tx, caller: HubCaller, name: str, *, public: bool, description: str = "") -> None:
    """:raises Refusal: :raises Conflict: it already exists."""
    who.creatable(tx, caller, name)
    if repositories.find(tx, name) is not None:
        raise Conflict(f"{name} already exists")
    made = repositories.ensure(tx, name, caller.settings)
    repositories.set_public(tx, name, public)
    profiles.describe(tx, made.id, description, ())
    caller.note(tx, "repository.create", name, public=public)


def describe(tx: Tx, caller: HubCaller, name: str, description: str, words: tuple[str, ...]) -> None:
    """:raises Refusal: :raises InvalidArgument:"""
    found = who.manageable(tx, caller, name)
    profiles.describe(tx, found.id, description, words)
    caller.note(tx, "repository.describe", name)


def set_readme(tx: Tx, caller: HubCaller, name: str, text: str) -> None:
    """:raises Refusal: :raises InvalidArgument:"""
    found = who.writable(tx, caller, name)
    profiles.set_readme(tx, found.id, text)
    caller.note(tx, "repository.readme", name)


def set_public(tx: Tx, caller: HubCaller, name: str, public: bool) -> None:
    """:raises Refusal:"""
    who.manageable(tx, caller, name)
    repositories.set_public(tx, name, public)
    if not public:
        accounts.revoke(tx, f"repository:{name}")
    caller.note(tx, "repository.publish" if public else "repository.hide", name)


def set_archived(tx: Tx, caller: HubCaller, name: str, archived: bool) -> None:
    """:raises Refusal:"""
    found = who.manageable(tx, caller, name)
    profiles.set_archived(tx, found.id, archived)
    accounts.revoke(tx, f"repository:{name}")
    caller.note(tx, "repository.archive" if archived else "repository.unarchive", name)


def rename(tx: Tx, caller: HubCaller, name: str, after: str) -> None:
    """Rename or transfer: the caller must be able to change the old and to create the new.

    :raises Refusal: :raises Conflict: :raises NotFound:
    """
    who.manageable(tx, caller, name)
    if names.namespace_of(after) != names.namespace_of(name):
        who.owned(tx, caller, names.namespace_of(name))
    if repositories.renamed(tx, after) != name:
        who.creatable(tx, caller, after)
    aliases.rename(tx, name, after)
    caller.note(tx, "repository.rename", after, before=name)


def release_alias(tx: Tx, caller: HubCaller, name: str, alias: str) -> None:
    """:raises Refusal: :raises NotFound:"""
    found = who.manageable(tx, caller, name)
    aliases.release(tx, found.id, alias)
    caller.note(tx, "repository.release-name", name, released=alias)


def delete(tx: Tx, caller: HubCaller, name: str) -> None:
    """It can be restored for a while. :raises Refusal:"""
    who.manageable(tx, caller, name)
    repositories.delete(tx, name)
    accounts.revoke(tx, f"repository:{name}")
    caller.note(tx, "repository.delete", name)


def undelete(tx: Tx, caller: HubCaller, name: str) -> bool:
    """:returns: whether there was a deleted repository of this name. :raises Refusal: :raises NotFound:"""
    who.owned(tx, caller, names.namespace_of(name))
    done = repositories.undelete(tx, name)
    if done:
        caller.note(tx, "repository.undelete", name)
    return done


def grant(tx: Tx, caller: HubCaller, name: str, account: str, level: str | None) -> None:
    """Give another account a level, or take it away. :raises Refusal: :raises NotFound: no such account."""
    who.manageable(tx, caller, name)
    other = accounts.needed(tx, account)
    repositories.grant(tx, name, other.id, level)
    accounts.revoke(tx, f"account:{other.id}")
    caller.note(tx, "repository.grant", name, account=account, level=level or "none")


def grants(tx: Tx, caller: HubCaller, name: str) -> list[tuple[str, str]]:
    """The account and the level of each grant. :raises Refusal:"""
    return repositories.grants(tx, who.manageable(tx, caller, name).id)


def star(tx: Tx, caller: HubCaller, name: str, on: bool) -> None:
    """:raises Refusal:"""
    stars.star(tx, who.acting(caller).account, who.readable(tx, caller, name).row, on)


def follow(tx: Tx, caller: HubCaller, name: str, on: bool) -> None:
    """:raises Refusal:"""
    stars.follow(tx, who.acting(caller).account, who.readable(tx, caller, name).id, on)


def follow_namespace(tx: Tx, caller: HubCaller, name: str, on: bool) -> None:
    """:raises NotFound:"""
    found, _ = who.namespace(tx, caller, name)
    stars.follow(tx, who.acting(caller).account, found.id, on, namespace=True)


def report(tx: Tx, caller: HubCaller, name: str, reason: str, message: str) -> None:
    """Tell the administrators about abuse. :raises Refusal: :raises InvalidArgument:"""
    who.readable(tx, caller, name)
    reports.add(tx, who.acting(caller).account, name, reason, message)


def can_push(tx: Tx, caller: HubCaller, name: str) -> bool:
    return who.may(tx, caller, name, rights.PUSH)
