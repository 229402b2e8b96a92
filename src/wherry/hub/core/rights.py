"""Rights: actions on a repository, the levels that are granted, and the limits of credentials.

A level is a set of actions. The rows give a principal a level in a repository (owner of the namespace,
grants, public repository); the credential can limit it further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.hub.core import globs

PULL, PUSH, DELETE = "pull", "push", "delete"
Actions = frozenset[str]

NOTHING: Actions = frozenset()
READ: Actions = frozenset({PULL})
WRITE: Actions = frozenset({PULL, PUSH})
ADMIN: Actions = frozenset({PULL, PUSH, DELETE})
LEVELS: dict[str, Actions] = {"read": READ, "write": WRITE, "admin": ADMIN}
ROLES: dict[str, Actions] = {"owner": ADMIN, "editor": WRITE, "member": READ}
"""The level of an organisation's members in all of its repositories."""
SCOPES: dict[str, Actions] = {"public_read": READ, **LEVELS}
"""The maximum level of a personal token. ``public_read`` is ``read`` for public repositories only."""


@dataclass(frozen=True)
class Principal:
    """The account or token that makes a request. ``access`` is the list in a bearer token; if present, only
    it counts, otherwise the rows decide.

    :ivar account: the account's id; none for an anonymous request.
    :ivar subject: ``account:7``, ``token:12`` …: revocations refer to it.
    :ivar scope: the maximum that the credential allows, a key of :data:`SCOPES`.
    :ivar patterns: repositories (globs) that the credential is limited to; empty: no limit.
    """

    account: int | None = None
    name: str = ""
    admin: bool = False
    access: Mapping[str, Actions] | None = None
    catalog: bool = False
    scope: str = "admin"
    patterns: tuple[str, ...] = field(default=())
    subjects: tuple[str, ...] = field(default=())

    @property
    def known(self) -> bool:
        return self.account is not None


ANYBODY = Principal()


def limited(caller: Principal, repository: str, actions: Actions, *, public: bool) -> Actions:
    """Limit the ``actions`` that the rows allow to those that the credential allows."""
    if caller.scope == "public_read" and not public:
        return NOTHING
    if caller.patterns and not any(globs.matches(pattern, repository) for pattern in caller.patterns):
        return actions & READ if public else NOTHING
    return actions & SCOPES[caller.scope]
