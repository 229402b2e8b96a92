"""Namespaces and organisations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wherry.hub.api.routes import ROUTES, ApiAsk
from wherry.hub.service import namespaces, repositories, who
from wherry.hub.store import events, stars
from wherry.hub.store.events import EventFilter
from wherry.hub.store.sql import Tx

_SPACE = "/namespaces/{namespace}"


@ROUTES.add("POST", "/organisations")
def create(tx: Tx, ask: ApiAsk) -> Any:
    """Create an organisation: name, title. The caller becomes its owner."""
    namespaces.create(tx, ask.caller, ask.text("name", most=64), ask.text("title", ""))


@ROUTES.add("DELETE", "/organisations/{namespace}")
def remove(tx: Tx, ask: ApiAsk) -> Any:
    """Delete an organisation without repositories."""
    namespaces.remove(tx, ask.caller, ask.place("namespace"))


@ROUTES.add("GET", _SPACE, public=True)
def show(tx: Tx, ask: ApiAsk) -> Any:
    """Describe a namespace; its storage for members only."""
    found, role = who.namespace(tx, ask.caller, ask.place("namespace"))
    lines = {
        "name": found.name, "kind": found.kind, "title": found.title, "about": found.about,
        "link": found.link, "created": found.created, "role": role or None,
        "followers": stars.followers(tx, found.id, namespace=True),
    }  # fmt: skip
    return lines | ({"quota": found.quota, "used": found.used} if role else {})


@ROUTES.add("PATCH", _SPACE)
def describe(tx: Tx, ask: ApiAsk) -> Any:
    """Change a namespace's profile: title, about, link."""
    name = ask.place("namespace")
    found = who.owned(tx, ask.caller, name)
    namespaces.describe(
        tx, ask.caller, name, ask.text("title", found.title), ask.text("about", found.about),
        ask.text("link", found.link),
    )  # fmt: skip


@ROUTES.add("PUT", f"{_SPACE}/follow")
def follow(tx: Tx, ask: ApiAsk) -> Any:
    """Follow a namespace."""
    repositories.follow_namespace(tx, ask.caller, ask.place("namespace"), True)


@ROUTES.add("DELETE", f"{_SPACE}/follow")
def unfollow(tx: Tx, ask: ApiAsk) -> Any:
    """Stop following a namespace."""
    repositories.follow_namespace(tx, ask.caller, ask.place("namespace"), False)


@ROUTES.add("GET", f"{_SPACE}/events")
def audit(tx: Tx, ask: ApiAsk) -> Any:
    """List the events of a namespace (owners): actor, action."""
    found = who.owned(tx, ask.caller, ask.place("namespace"))
    get = ask.query.get
    wanted = EventFilter(namespace=found.name, actor=get("actor", ""), action=get("action", ""))
    lines = events.page(tx, wanted, before=ask.before())
    return {"events": [asdict(one) for one in lines]}


@ROUTES.add("GET", f"{_SPACE}/members")
def members(tx: Tx, ask: ApiAsk) -> Any:
    """List the members of an organisation."""
    found = namespaces.members(tx, ask.caller, ask.place("namespace"))
    return {"members": [{"account": account, "role": role} for account, role in found]}


@ROUTES.add("PUT", f"{_SPACE}/members/{{account}}")
def set_role(tx: Tx, ask: ApiAsk) -> Any:
    """Add a member, or change its role: role (owner, editor, member)."""
    namespaces.set_role(tx, ask.caller, ask.place("namespace"), ask.place("account"), ask.text("role"))


@ROUTES.add("DELETE", f"{_SPACE}/members/{{account}}")
def remove_member(tx: Tx, ask: ApiAsk) -> Any:
    """Remove a member; everybody can remove itself."""
    namespaces.set_role(tx, ask.caller, ask.place("namespace"), ask.place("account"), None)


@ROUTES.add("POST", f"{_SPACE}/invitations")
def invite(tx: Tx, ask: ApiAsk) -> Any:
    """Invite somebody: role. The answer has the secret of the link /account/invitation/SECRET/, once."""
    return {"secret": namespaces.invite(tx, ask.caller, ask.place("namespace"), "", ask.text("role"))}


@ROUTES.add("GET", f"{_SPACE}/teams")
def teams(tx: Tx, ask: ApiAsk) -> Any:
    """List the teams of an organisation with their members and levels."""
    return {"teams": [asdict(one) for one in namespaces.all_teams(tx, ask.caller, ask.place("namespace"))]}


@ROUTES.add("POST", f"{_SPACE}/teams")
def add_team(tx: Tx, ask: ApiAsk) -> Any:
    """Create a team: name."""
    namespaces.add_team(tx, ask.caller, ask.place("namespace"), ask.text("name", most=64))


@ROUTES.add("DELETE", f"{_SPACE}/teams/{{team}}")
def remove_team(tx: Tx, ask: ApiAsk) -> Any:
    """Remove a team."""
    namespaces.remove_team(tx, ask.caller, ask.place("namespace"), ask.place("team"))


@ROUTES.add("PUT", f"{_SPACE}/teams/{{team}}/members/{{account}}")
def join(tx: Tx, ask: ApiAsk) -> Any:
    """Add a member of the organisation to a team."""
    namespaces.set_team_member(
        tx, ask.caller, ask.place("namespace"), ask.place("team"), ask.place("account"), True
    )


@ROUTES.add("DELETE", f"{_SPACE}/teams/{{team}}/members/{{account}}")
def leave(tx: Tx, ask: ApiAsk) -> Any:
    """Remove an account from a team."""
    namespaces.set_team_member(
        tx, ask.caller, ask.place("namespace"), ask.place("team"), ask.place("account"), False
    )


@ROUTES.add("PUT", f"{_SPACE}/teams/{{team}}/levels")
def team_grant(tx: Tx, ask: ApiAsk) -> Any:
    """Give a team a level: repository (* for all), level (null: none)."""
    level = None if ask.body.get("level") is None else ask.text("level")
    namespaces.team_grant(
        tx, ask.caller, ask.place("namespace"), ask.place("team"), ask.text("repository"), level
    )


@ROUTES.add("GET", f"{_SPACE}/robots")
def robots(tx: Tx, ask: ApiAsk) -> Any:
    """List the robots of an organisation."""
    found = namespaces.robots(tx, ask.caller, ask.place("namespace"))
    return {"robots": [{"account": name, "role": role} for name, role in found]}


@ROUTES.add("POST", f"{_SPACE}/robots")
def add_robot(tx: Tx, ask: ApiAsk) -> Any:
    """Create a robot: name, level (read, write). The answer has its token, once."""
    return {
        "token": namespaces.add_robot(
            tx, ask.caller, ask.place("namespace"), ask.text("name", most=64), ask.text("level"), True
        )
    }


@ROUTES.add("DELETE", f"{_SPACE}/robots/{{account}}")
def remove_robot(tx: Tx, ask: ApiAsk) -> Any:
    """Remove a robot and its tokens."""
    namespaces.remove_robot(tx, ask.caller, ask.place("namespace"), ask.place("account"))
