"""Repositories, tags and images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wherry.errors import InvalidArgument
from wherry.hub.api.routes import ROUTES, ApiAsk
from wherry.hub.core import categories, names, rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.service import automation, repositories, who
from wherry.hub.service import tags as tagging
from wherry.hub.store import cards, events, insights, profiles, stars
from wherry.hub.store import tags as tag_rows
from wherry.hub.store.cards import Search
from wherry.hub.store.events import EventFilter
from wherry.hub.store.sql import Tx
from wherry.hub.store.tags import Shown

_REPOSITORY = "/repositories/{repository}"


@ROUTES.add("GET", "/repositories", public=True)
def search(tx: Tx, ask: ApiAsk) -> Any:
    """Search repositories: q, namespace, official, signed, arch, os, category, within, sort, starred,
    page."""
    get = ask.query
    sort, within = get.get("sort", "pulls"), get.get("within", "0")
    if sort not in cards.SORTS or not within.isdigit() or len(within) > 5:
        raise InvalidArgument(f"sort: use one of {', '.join(cards.SORTS)}; within: days")
    if get.get("category", "") not in ("", *categories.CATEGORIES):
        raise InvalidArgument(f"category: use one of {', '.join(categories.CATEGORIES)}")
    size, skip = ask.page()
    asked = Search(
        words=tuple(get.get("q", "")[:200].lower().split()[:8]),
        namespace=get.get("namespace", "")[:64],
        official=get.get("official") == "true",
        signed=get.get("signed") == "true",
        architecture=get.get("arch", "")[:32],
        os=get.get("os", "")[:32],
        category=get.get("category", ""),
        within=int(within),
        sort=sort,
        starred_by=ask.caller.account if get.get("starred") == "true" else None,
    )
    found = cards.find(tx, ask.caller.principal, asked, size + 1, skip)
    lines = [asdict(one) | {"official": one.official} for one in found[:size]]
    return {"repositories": lines, "more": len(found) > size}


@ROUTES.add("POST", "/repositories")
def create(tx: Tx, ask: ApiAsk) -> Any:
    """Create a repository: name, public, description."""
    name = ask.text("name", most=255)
    repositories.create(
        tx, ask.caller, name, public=ask.flag("public"), description=ask.text("description", "")
    )
    return _described(tx, ask, name)


def _described(tx: Tx, ask: ApiAsk, name: str) -> dict[str, Any]:
    found = who.readable(tx, ask.caller, name)
    account = ask.caller.principal.account
    lines = asdict(found) | {
        "official": found.official,
        "starred": account is not None and stars.is_starred(tx, account, found.id),
        "followed": account is not None and stars.is_followed(tx, account, found.id),
    }
    del lines["id"], lines["namespace_id"]
    return lines


@ROUTES.add("GET", _REPOSITORY, public=True)
def show(tx: Tx, ask: ApiAsk) -> Any:
    """Describe a repository."""
    return _described(tx, ask, ask.repository)


@ROUTES.add("PATCH", _REPOSITORY)
def change(tx: Tx, ask: ApiAsk) -> Any:
    """Change a repository: description, categories, readme, public, archived."""
    known = {"description", "categories", "readme", "public", "archived"}
    if unknown := set(ask.body) - known:
        raise InvalidArgument(f"unknown: {', '.join(sorted(unknown))[:200]}")
    name, body = ask.repository, ask.body
    present = who.manageable(tx, ask.caller, name)
    if "description" in body or "categories" in body:
        words = ask.texts("categories") if "categories" in body else present.categories
        repositories.describe(tx, ask.caller, name, ask.text("description", present.description), words)
    if "readme" in body:
        repositories.set_readme(tx, ask.caller, name, ask.text("readme", most=profiles.README_MAX))
    if "public" in body:
        repositories.set_public(tx, ask.caller, name, ask.flag("public"))
    if "archived" in body:
        repositories.set_archived(tx, ask.caller, name, ask.flag("archived"))
    return _described(tx, ask, name)


@ROUTES.add("DELETE", _REPOSITORY)
def delete(tx: Tx, ask: ApiAsk) -> Any:
    """Delete a repository. It can be restored for a while."""
    repositories.delete(tx, ask.caller, ask.repository)


@ROUTES.add("POST", f"{_REPOSITORY}/-/undelete")
def undelete(tx: Tx, ask: ApiAsk) -> Any:
    """Restore a deleted repository."""
    if not repositories.undelete(tx, ask.caller, ask.repository):
        raise Refusal("NAME_UNKNOWN", f"there is no deleted repository {ask.repository}")
    return _described(tx, ask, ask.repository)


@ROUTES.add("POST", f"{_REPOSITORY}/-/rename")
def rename(tx: Tx, ask: ApiAsk) -> Any:
    """Rename a repository, or transfer it to another namespace: name. The old name keeps working for
    pulls."""
    after = ask.text("name", most=255)
    repositories.rename(tx, ask.caller, ask.repository, after)
    return _described(tx, ask, after)


@ROUTES.add("PUT", f"{_REPOSITORY}/-/star")
def star(tx: Tx, ask: ApiAsk) -> Any:
    """Star a repository."""
    repositories.star(tx, ask.caller, ask.repository, True)


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/star")
def unstar(tx: Tx, ask: ApiAsk) -> Any:
    """Take a star back."""
    repositories.star(tx, ask.caller, ask.repository, False)


@ROUTES.add("PUT", f"{_REPOSITORY}/-/follow")
def follow(tx: Tx, ask: ApiAsk) -> Any:
    """Follow a repository."""
    repositories.follow(tx, ask.caller, ask.repository, True)


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/follow")
def unfollow(tx: Tx, ask: ApiAsk) -> Any:
    """Stop following a repository."""
    repositories.follow(tx, ask.caller, ask.repository, False)


@ROUTES.add("POST", f"{_REPOSITORY}/-/reports")
def report(tx: Tx, ask: ApiAsk) -> Any:
    """Report abuse: reason, message."""
    repositories.report(tx, ask.caller, ask.repository, ask.text("reason"), ask.text("message"))


@ROUTES.add("GET", f"{_REPOSITORY}/-/events", public=True)
def activity(tx: Tx, ask: ApiAsk) -> Any:
    """List what happened in a repository, newest first: before (the id of an event)."""
    who.readable(tx, ask.caller, ask.repository)
    wanted = EventFilter(
        repository=ask.repository, everything=who.may(tx, ask.caller, ask.repository, rights.DELETE)
    )
    found = events.page(tx, wanted, before=ask.before(), count=PAGE_OF_EVENTS)
    return {"events": [_event(asdict(one)) for one in found]}


PAGE_OF_EVENTS = 100


def _event(line: dict[str, Any]) -> dict[str, Any]:
    """Addresses of people are for owners, in the audit."""
    del line["address"]
    return line


@ROUTES.add("GET", f"{_REPOSITORY}/-/insights", public=True)
def pulls(tx: Tx, ask: ApiAsk) -> Any:
    """Count pulls: days (at most 365); by day, tag, platform and client."""
    text = ask.query.get("days", "30")
    if not text.isdigit() or not 1 <= int(text[:6]) <= 365:
        raise InvalidArgument("days: use 1 to 365")
    number, days = who.readable(tx, ask.caller, ask.repository).id, int(text)
    return {
        "daily": [{"day": day * insights.DAY, "pulls": n} for day, n in insights.daily(tx, number, days)],
        **{kind: dict(insights.split(tx, number, days, kind)) for kind in insights.KINDS},
    }


def _tag(one: Shown) -> dict[str, Any]:
    lines = asdict(one)
    del lines["id"]
    return lines


@ROUTES.add("GET", f"{_REPOSITORY}/-/tags", public=True)
def tags(tx: Tx, ask: ApiAsk) -> Any:
    """List tags: q, sort (last_updated, name; - in front reverses), page."""
    who.readable(tx, ask.caller, ask.repository)
    sort = ask.query.get("sort", "last_updated")
    if sort.removeprefix("-") not in ("last_updated", "name"):
        raise InvalidArgument("sort: use last_updated or name")
    size, skip = ask.page()
    total, found = tag_rows.shown_page(tx, ask.repository, ask.query.get("q", "")[:128], sort, size, skip)
    return {"count": total, "tags": [_tag(one) for one in found]}


@ROUTES.add("GET", f"{_REPOSITORY}/-/tags/{{tag}}", public=True)
def tag(tx: Tx, ask: ApiAsk) -> Any:
    """Describe a tag."""
    who.readable(tx, ask.caller, ask.repository)
    found = tag_rows.shown(tx, ask.repository, ask.place("tag"))
    if found is None:
        raise Refusal("MANIFEST_UNKNOWN", "tag unknown")
    return _tag(found)


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/tags/{{tag}}")
def delete_tag(tx: Tx, ask: ApiAsk) -> Any:
    """Delete a tag."""
    tagging.delete(tx, ask.caller, ask.repository, ask.place("tag"))


@ROUTES.add("GET", f"{_REPOSITORY}/-/tags/{{tag}}/history", public=True)
def history(tx: Tx, ask: ApiAsk) -> Any:
    """List the targets of a tag, newest first."""
    who.readable(tx, ask.caller, ask.repository)
    return {"moves": [asdict(one) for one in tag_rows.history(tx, ask.repository, ask.place("tag"))]}


@ROUTES.add("POST", f"{_REPOSITORY}/-/tags/{{tag}}/revert")
def revert(tx: Tx, ask: ApiAsk) -> Any:
    """Point a tag to an earlier image: digest."""
    tagging.revert(tx, ask.caller, ask.repository, ask.place("tag"), ask.text("digest"))
    return tag(tx, ask)


@ROUTES.add("POST", f"{_REPOSITORY}/-/tags/{{tag}}/copy")
def copy(tx: Tx, ask: ApiAsk) -> Any:
    """Give the image of a tag another tag as well: tag."""
    tagging.copy(tx, ask.caller, ask.repository, ask.place("tag"), names.check_tag(ask.text("tag")))


@ROUTES.add("PUT", f"{_REPOSITORY}/-/tags/{{tag}}/expiry")
def expire(tx: Tx, ask: ApiAsk) -> Any:
    """Delete a tag in some days: days (null: keep it)."""
    tagging.expire(tx, ask.caller, ask.repository, ask.place("tag"), ask.count("days"))


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/images/{{digest}}")
def delete_image(tx: Tx, ask: ApiAsk) -> Any:
    """Delete an image and its tags."""
    tagging.delete_image(tx, ask.caller, ask.repository, ask.place("digest"))


@ROUTES.add("POST", f"{_REPOSITORY}/-/images/{{digest}}/undelete")
def undelete_image(tx: Tx, ask: ApiAsk) -> Any:
    """Restore a deleted image."""
    tagging.undelete_image(tx, ask.caller, ask.repository, ask.place("digest"))


@ROUTES.add("GET", f"{_REPOSITORY}/-/access")
def grants(tx: Tx, ask: ApiAsk) -> Any:
    """List who has access besides the owners."""
    found = repositories.grants(tx, ask.caller, ask.repository)
    return {"access": [{"account": account, "level": level} for account, level in found]}


@ROUTES.add("PUT", f"{_REPOSITORY}/-/access/{{account}}")
def grant(tx: Tx, ask: ApiAsk) -> Any:
    """Give an account a level: level (read, write, admin)."""
    level = ask.text("level")
    if level not in ("read", "write", "admin"):
        raise InvalidArgument("level: use read, write or admin")
    repositories.grant(tx, ask.caller, ask.repository, ask.place("account"), level)


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/access/{{account}}")
def ungrant(tx: Tx, ask: ApiAsk) -> Any:
    """Take an account's level away."""
    repositories.grant(tx, ask.caller, ask.repository, ask.place("account"), None)


@ROUTES.add("GET", f"{_REPOSITORY}/-/rules")
def rules(tx: Tx, ask: ApiAsk) -> Any:
    """List the rules that concern a repository."""
    return {"rules": [asdict(one) for one in automation.rules_of(tx, ask.caller, ask.repository)]}


@ROUTES.add("POST", f"{_REPOSITORY}/-/rules")
def add_rule(tx: Tx, ask: ApiAsk) -> Any:
    """Add a rule: kind (immutable, retain), tags (a pattern), keep_last, keep_days."""
    made = automation.add_rule(
        tx, ask.caller, ask.repository, ask.text("kind"), ask.text("tags", most=255), ask.count("keep_last"),
        ask.count("keep_days"),
    )  # fmt: skip
    return {"id": made}


@ROUTES.add("POST", f"{_REPOSITORY}/-/rules/dry-run")
def dry_run(tx: Tx, ask: ApiAsk) -> Any:
    """List the tags that retention would delete now, optionally with one more rule: tags, keep_last,
    keep_days."""
    found = automation.dry_run(
        tx,
        ask.caller,
        ask.repository,
        ask.text("tags", "", 255),
        ask.count("keep_last"),
        ask.count("keep_days"),
    )
    return {"tags": [asdict(one) for one in found]}


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/rules/{{number}}")
def remove_rule(tx: Tx, ask: ApiAsk) -> Any:
    """Remove a rule."""
    automation.remove_rule(tx, ask.caller, ask.repository, ask.number)


@ROUTES.add("GET", f"{_REPOSITORY}/-/webhooks")
def hooks(tx: Tx, ask: ApiAsk) -> Any:
    """List the webhooks of a repository."""
    return {"webhooks": [asdict(one) for one in automation.hooks(tx, ask.caller, ask.repository)]}


@ROUTES.add("POST", f"{_REPOSITORY}/-/webhooks")
def add_hook(tx: Tx, ask: ApiAsk) -> Any:
    """Create a webhook: url, events. The answer has its secret, once."""
    made, secret = automation.add_hook(tx, ask.caller, ask.repository, ask.text("url"), ask.texts("events"))
    return {"id": made, "secret": secret}


@ROUTES.add("DELETE", f"{_REPOSITORY}/-/webhooks/{{number}}")
def remove_hook(tx: Tx, ask: ApiAsk) -> Any:
    """Remove a webhook."""
    automation.remove_hook(tx, ask.caller, ask.repository, ask.number)


@ROUTES.add("POST", f"{_REPOSITORY}/-/webhooks/{{number}}/test")
def test_hook(tx: Tx, ask: ApiAsk) -> Any:
    """Send a test."""
    automation.test_hook(tx, ask.caller, ask.repository, ask.number)


@ROUTES.add("GET", f"{_REPOSITORY}/-/webhooks/{{number}}/deliveries")
def deliveries(tx: Tx, ask: ApiAsk) -> Any:
    """List the last deliveries of a webhook."""
    found = automation.deliveries(tx, ask.caller, ask.repository, ask.number)
    return {"deliveries": [asdict(one) for one in found]}


@ROUTES.add("POST", f"{_REPOSITORY}/-/webhooks/{{number}}/redeliver")
def redeliver(tx: Tx, ask: ApiAsk) -> Any:
    """Send a delivery again: delivery (its id)."""
    automation.redeliver(tx, ask.caller, ask.repository, ask.number, ask.count("delivery") or 0)
