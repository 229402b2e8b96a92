"""Names of repositories, namespaces, tags and accounts.

Grammar of repositories and tags: distribution-spec, "Pulling manifests". The first component of a name with
two or more is its namespace; a name of one component belongs to the hub itself (namespace ``""``), which only
administrators may write.
"""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument
from wherry.hub.core.refusals import Refusal

LENGTH_MAX = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_ACCOUNT = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
ACCOUNT_LENGTH_MAX = 64

RESERVED = frozenset(
    "_catalog account accounts admin administrator api auth docs factory health help hub library login logout"
    " metrics official oauth2 org organisation organization root search settings static support system token"
    " tokens v1 v2 webhooks wherry".split()
)
"""Reserved names of accounts and organisations: paths of the hub, and names that look official."""


def check_repository(name: str) -> str:
    """:raises Refusal: ``NAME_INVALID``."""
    if len(name) > LENGTH_MAX or _REPOSITORY.fullmatch(name) is None:
        raise Refusal("NAME_INVALID", f"invalid repository name: {name[:140]!r}", detail={"name": name[:140]})
    return name


def namespace_of(repository: str) -> str:
    """``team`` of ``team/app/web``; empty for a name of one component."""
    head, slash, _ = repository.partition("/")
    return head if slash else ""


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str) -> str:
    """:raises Refusal: ``TAG_INVALID``."""
    if not is_tag(tag):
        raise Refusal("TAG_INVALID", f"invalid tag: {tag[:140]!r}", detail={"tag": tag[:140]})
    return tag


def folded(name: str) -> str:
    """A normal form of look-alike names: without separators, and with one letter for all similar ones."""
    return name.translate(str.maketrans("01i", "oll", "._-"))


def check_account(name: str, *, reserved: bool = False) -> str:
    """A name for an account or an organisation, which is a namespace as well.

    :param reserved: allow reserved names, for the operator.
    :raises InvalidArgument: it is not a valid name, or is reserved.
    """
    if len(name) > ACCOUNT_LENGTH_MAX or _ACCOUNT.fullmatch(name) is None:
        raise InvalidArgument(
            f"invalid name {name[:70]!r}: lower-case letters and digits, separated by '.', '_', '-',"
            f" at most {ACCOUNT_LENGTH_MAX} characters"
        )
    if not reserved and name in RESERVED:
        raise InvalidArgument(f"the name {name!r} is reserved")
    return name
