"""Rules for tags and webhooks of one repository. Those of the operator, with patterns, are shown, and can be
changed on the command line only."""

from __future__ import annotations

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.core import globs
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import rules, webhooks
from wherry.hub.store.rules import Leaving, RetentionRule
from wherry.hub.store.sql import Tx
from wherry.hub.store.webhooks import Told, Webhook

_RULES_MAX = 50
_DAY = 86400
EVENTS = ("manifest.push", "manifest.delete", "tag.delete", "tag.revert", "repository.*")


def rules_of(tx: Tx, caller: HubCaller, name: str) -> list[RetentionRule]:
    """The rules that concern a repository, the operator's as well. :raises Refusal:"""
    who.manageable(tx, caller, name)
    return [one for one in rules.all_of(tx) if globs.matches(one.repository, name)]


def _retain(last: int | None, days: int | None) -> None:
    if last is None and days is None:
        raise InvalidArgument("say how many tags to keep, or for how long")
    if last is not None and not 0 <= last <= 100_000:
        raise InvalidArgument("keep last: use 0 to 100000")
    if days is not None and not 0 < days <= 36_500:
        raise InvalidArgument("days: use 1 to 36500")


def add_rule(
    tx: Tx,
    caller: HubCaller,
    name: str,
    kind: str,
    pattern: str,
    last: int | None = None,
    days: int | None = None,
) -> int:
    """A rule ``immutable`` or ``retain``. :raises Refusal: :raises InvalidArgument:"""
    who.manageable(tx, caller, name)
    if kind not in (rules.IMMUTABLE, rules.RETAIN):
        raise InvalidArgument(f"no such kind of rule: {kind[:40]!r}")
    if kind == rules.RETAIN:
        _retain(last, days)
    if sum(one.repository == name for one in rules.all_of(tx)) >= _RULES_MAX:
        raise InvalidArgument(f"at most {_RULES_MAX} rules of a repository")
    seconds = days * _DAY if days is not None else None
    made = rules.add(tx, kind, name, globs.check(pattern), last, seconds)
    caller.note(tx, "rule.add", name, rule=made, kind=kind, tags=pattern)
    return made


def remove_rule(tx: Tx, caller: HubCaller, name: str, number: int) -> None:
    """:raises Refusal: :raises NotFound: no such rule of this repository."""
    who.manageable(tx, caller, name)
    if not any(one.id == number and one.repository == name for one in rules.all_of(tx)):
        raise NotFound(f"no such rule of {name}: {number}")
    rules.remove(tx, number)
    caller.note(tx, "rule.remove", name, rule=number)


def dry_run(
    tx: Tx, caller: HubCaller, name: str, pattern: str = "", last: int | None = None, days: int | None = None
) -> list[Leaving]:
    """The tags that retention would delete now: by the rules that there are, or with one more rule.

    :raises Refusal: :raises InvalidArgument:
    """
    found = who.manageable(tx, caller, name)
    more = []
    if pattern:
        _retain(last, days)
        seconds = days * _DAY if days is not None else None
        more.append(RetentionRule(0, rules.RETAIN, name, globs.check(pattern), last, seconds))
    return rules.leaving_of(tx, found.id, name, more)


def hooks(tx: Tx, caller: HubCaller, name: str) -> list[Webhook]:
    """:raises Refusal:"""
    who.manageable(tx, caller, name)
    return [one for one in webhooks.all_of(tx) if one.repository == name]


def hook(tx: Tx, caller: HubCaller, name: str, number: int) -> Webhook:
    """:raises Refusal: :raises NotFound:"""
    for one in hooks(tx, caller, name):
        if one.id == number:
            return one
    raise NotFound(f"no such webhook of {name}: {number}")


def add_hook(tx: Tx, caller: HubCaller, name: str, url: str, wanted: tuple[str, ...]) -> tuple[int, str]:
    """:returns: its id and its secret, which is shown once. :raises Refusal: :raises InvalidArgument:"""
    who.manageable(tx, caller, name)
    if not wanted or not set(wanted) <= set(EVENTS):
        raise InvalidArgument(f"events: choose of {', '.join(EVENTS)}")
    if len(hooks(tx, caller, name)) >= _RULES_MAX:
        raise InvalidArgument(f"at most {_RULES_MAX} webhooks of a repository")
    made, secret = webhooks.add(tx, name, wanted, caller.webhooks.check_url(url[:2000]))
    caller.note(tx, "webhook.add", name, webhook=made)
    return made, secret


def remove_hook(tx: Tx, caller: HubCaller, name: str, number: int) -> None:
    """:raises Refusal: :raises NotFound:"""
    hook(tx, caller, name, number)
    webhooks.remove(tx, number)
    caller.note(tx, "webhook.remove", name, webhook=number)


def deliveries(tx: Tx, caller: HubCaller, name: str, number: int) -> list[Told]:
    """Newest first. :raises Refusal: :raises NotFound:"""
    hook(tx, caller, name, number)
    return webhooks.history(tx, number)


def redeliver(tx: Tx, caller: HubCaller, name: str, number: int, delivery: int) -> None:
    """:raises Refusal: :raises NotFound:"""
    if not any(one.id == delivery for one in deliveries(tx, caller, name, number)):
        raise NotFound(f"no such delivery: {delivery}")
    webhooks.again(tx, delivery)


def test_hook(tx: Tx, caller: HubCaller, name: str, number: int) -> None:
    """Send an event of kind ``webhook.test`` to the webhook, whatever events it is for.

    :raises Refusal: :raises NotFound:
    """
    hook(tx, caller, name, number)
    webhooks.test(tx, number, caller.name, caller.address, name)
