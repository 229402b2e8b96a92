"""Who asks, and what they may see and change.

To a caller who cannot read a repository it does not exist, whatever they ask for. What they can read but not
change is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wherry.errors import NotFound
from wherry.hub.core import names, rights
from wherry.hub.core.reach import Rules
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.store import events, orgs, profiles, repositories
from wherry.hub.store.profiles import NamespaceProfile, RepositoryProfile
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx


@dataclass(frozen=True)
class HubCaller:
    """:ivar address: of the client, for the record.
    :ivar webhooks: which addresses webhooks can reach.
    """

    principal: Principal
    address: str = ""
    settings: HubSettings = field(default_factory=HubSettings)
    webhooks: Rules = field(default_factory=Rules)

    @property
    def account(self) -> int:
        """:raises Refusal: ``UNAUTHORIZED``: nobody is logged in."""
        if self.principal.account is None:
            raise Refusal("UNAUTHORIZED", "log in first")
        return self.principal.account

    @property
    def name(self) -> str:
        return self.principal.name

    def note(self, tx: Tx, action: str, repository: str = "", namespace: str = "", **detail: Any) -> None:
        events.note(tx, self.name, self.address, action, repository, namespace, **detail)


def _denied(what: str) -> Refusal:
    return Refusal("DENIED", f"you cannot {what}")


def readable(tx: Tx, caller: HubCaller, name: str) -> RepositoryProfile:
    """:raises Refusal: ``NAME_UNKNOWN``: it does not exist, or the caller cannot read it."""
    found = profiles.repository(tx, name)
    if found is None or rights.PULL not in repositories.allowed(tx, caller.principal, name):
        raise repositories.unknown(name)
    return found


def may(tx: Tx, caller: HubCaller, name: str, action: str) -> bool:
    return caller.principal.known and action in repositories.allowed(tx, caller.principal, name)


def writable(tx: Tx, caller: HubCaller, name: str) -> RepositoryProfile:
    """:raises Refusal:"""
    return _with(tx, caller, name, rights.PUSH, f"change tags of {name}")


def manageable(tx: Tx, caller: HubCaller, name: str) -> RepositoryProfile:
    """A repository whose settings the caller can change. :raises Refusal:"""
    return _with(tx, caller, name, rights.DELETE, f"change {name}")


def _with(tx: Tx, caller: HubCaller, name: str, action: str, what: str) -> RepositoryProfile:
    found = readable(tx, caller, name)
    if not may(tx, caller, name, action):
        raise _denied(what)
    return found


def acting(caller: HubCaller) -> HubCaller:
    """Somebody who is logged in, with more than a credential for reading. :raises Refusal:"""
    if caller.account is not None and caller.principal.scope not in ("write", "admin"):
        raise _denied("do this with a token for reading")
    return caller


def full(caller: HubCaller) -> HubCaller:
    """For what concerns an account or a namespace as a whole: tokens that are limited to some repositories,
    or to less than all rights, do not have it.

    :raises Refusal:
    """
    if caller.account is not None and (caller.principal.scope != "admin" or caller.principal.patterns):
        raise _denied("do this with a limited token")
    return caller


def administrator(caller: HubCaller) -> HubCaller:
    """:raises Refusal:"""
    if not full(caller).principal.admin:
        raise _denied("do this: only administrators can")
    return caller


def namespace(tx: Tx, caller: HubCaller, name: str) -> tuple[NamespaceProfile, str]:
    """A namespace and the caller's role in it; administrators have the role of an owner.

    Namespaces of accounts and organisations are public, like their names; what is in them is not.

    :raises NotFound:
    """
    found = profiles.namespace(tx, name) if name else None
    if found is None:
        raise NotFound(f"no such account or organisation: {name}")
    role = ""
    if caller.principal.account is not None and caller.principal.scope == "admin":
        role = profiles.role_in(tx, caller.principal.account, found.id)
        if caller.principal.admin and not caller.principal.patterns:
            role = "owner"
    return found, role


def owned(tx: Tx, caller: HubCaller, name: str) -> NamespaceProfile:
    """A namespace of which the caller is an owner. :raises Refusal: :raises NotFound:"""
    full(caller)
    found, role = namespace(tx, caller, name)
    if role != "owner":
        raise _denied(f"change {name}")
    return found


def organisation(tx: Tx, caller: HubCaller, name: str, *, owner: bool = True) -> NamespaceProfile:
    """An organisation of which the caller is an owner (or a member). :raises NotFound: :raises Refusal:"""
    full(caller)
    found, role = namespace(tx, caller, name)
    if found.owner is not None:
        raise NotFound(f"no such organisation: {name}")
    orgs.namespace(tx, name)
    if not role or (owner and role != "owner"):
        raise _denied(f"{'change' if owner else 'see the members of'} {name}")
    return found


def creatable(tx: Tx, caller: HubCaller, name: str) -> str:
    """A valid name of a repository that the caller can create. :raises Refusal:"""
    names.check_repository(name)
    if not may(tx, caller, name, rights.PUSH):
        raise _denied(f"create repositories in {names.namespace_of(name) or 'the hub itself'}")
    return name
