"""Earlier names of repositories, archived ones, and the end of an account, on rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.errors import Conflict
from wherry.hub.core import rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import ANYBODY, Principal
from wherry.hub.store import (
    accounts,
    aliases,
    cards,
    events,
    insights,
    invitations,
    orgs,
    repositories,
    rules,
    schema,
    stars,
    webhooks,
)
from wherry.hub.store.cards import Search
from wherry.hub.store.insights import PullKey
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx
from wherry.hub.store.sqlite import SqliteTx, connect

SETTINGS = HubSettings()


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Tx]:
    connection = connect(tmp_path / "hub.db")
    for _, path in schema.scripts():
        for statement in schema.statements(path, "sqlite"):
            connection.execute(statement)
    made = SqliteTx(connection)
    for name in ("ann", "ben"):
        accounts.add(made, name, "", admin=False, email=f"{name}@example.org")
    orgs.add(made, "team", "ann")
    repositories.ensure(made, "ann/app", SETTINGS)
    yield made
    connection.close()


def principal(tx: Tx, name: str) -> Principal:
    found = accounts.needed(tx, name)
    return Principal(found.id, found.name)


def test_a_renamed_repository_is_found_by_both_names(tx: Tx) -> None:
    rules.add(tx, rules.IMMUTABLE, "ann/app", "v*")
    webhooks.add(tx, "ann/app", ("*",), "https://x.example/")
    rules.add(tx, rules.IMMUTABLE, "ann/*", "x*")
    aliases.rename(tx, "ann/app", "ann/tool")
    assert repositories.renamed(tx, "ann/app") == "ann/tool"
    assert repositories.allowed(tx, principal(tx, "ann"), "ann/app") == rights.READ
    assert repositories.allowed(tx, principal(tx, "ben"), "ann/app") == rights.NOTHING
    with pytest.raises(Refusal, match="renamed"):
        repositories.ensure(tx, "ann/app", SETTINGS)
    assert [one.repository for one in rules.all_of(tx)] == ["ann/tool", "ann/*"]
    assert [one.repository for one in webhooks.all_of(tx)] == ["ann/tool"]
    aliases.rename(tx, "ann/tool", "ann/app")  # back again: the alias turns round
    assert repositories.renamed(tx, "ann/app") is None and repositories.renamed(tx, "ann/tool") == "ann/app"
    number = repositories.needed(tx, "ann/app").id
    aliases.release(tx, number, "ann/tool")
    repositories.ensure(tx, "ann/tool", SETTINGS)
    with pytest.raises(Conflict):
        aliases.rename(tx, "ann/app", "ann/tool")


def test_a_transfer_takes_its_bytes_along(tx: Tx) -> None:
    repository = repositories.needed(tx, "ann/app")
    tx.run("INSERT INTO blob (digest, size, storage_key, created) VALUES ('d', 700, 'k', 0)")
    tx.run("INSERT INTO repository_blob (repository_id, blob_id) VALUES (?, 1)", repository.id)
    repositories.use(tx, repository, 700)
    repositories.set_quota(tx, "team", 500)
    with pytest.raises(Refusal, match="quota"):
        aliases.rename(tx, "ann/app", "team/app")
    repositories.set_quota(tx, "team", 900)
    aliases.rename(tx, "ann/app", "team/app")
    used = dict(tx.all("SELECT name, used_bytes FROM namespace"))
    assert (used["ann"], used["team"]) == (0, 700)


def test_nobody_leaves_an_organisation_without_an_owner(tx: Tx) -> None:
    ann = accounts.needed(tx, "ann").id
    with pytest.raises(Conflict, match="only owner of team"):
        accounts.close(tx, ann)
    orgs.set_role(tx, "team", "ben", "owner")
    accounts.close(tx, ann)
    row = tx.one("SELECT email, password, active FROM account WHERE id = ?", ann)
    assert row is not None and tuple(row) == (None, "", 0)
    assert repositories.find(tx, "ann/app") is None
    assert accounts.is_taken(tx, "ann") and accounts.is_taken(tx, "a.nn")


def test_stars_are_counted_once_and_taken_back(tx: Tx) -> None:
    ben, repository = accounts.needed(tx, "ben").id, repositories.needed(tx, "ann/app")
    for on in (True, True, False, False, True):
        stars.star(tx, ben, repository, on)
    assert tx.one("SELECT stars FROM repository WHERE id = ?", repository.id) == (1,)
    stars.forget(tx, ben)
    assert tx.one("SELECT stars FROM repository WHERE id = ?", repository.id) == (0,)


def test_lists_have_only_what_the_caller_can_read(tx: Tx) -> None:
    for name in ("team/secret", "team/shown", "ben/percent"):
        repositories.ensure(tx, name, SETTINGS)
    repositories.set_public(tx, "team/shown", True)

    def seen(caller: Principal, asked: Search) -> list[str]:
        return [one.name for one in cards.find(tx, caller, asked, 50)]

    for sort in cards.SORTS:
        if sort in ("recent", "updated"):
            continue  # nothing was pulled or pushed
        assert seen(ANYBODY, Search(sort=sort)) == ["team/shown"]
        assert set(seen(principal(tx, "ben"), Search(sort=sort))) == {"team/shown", "ben/percent"}
        assert set(seen(principal(tx, "ann"), Search(sort=sort))) == {"ann/app", "team/shown", "team/secret"}
    assert seen(principal(tx, "ann"), Search(words=("%",))) == [] == seen(ANYBODY, Search(words=("_",)))
    assert seen(principal(tx, "ann"), Search(public=True)) == ["team/shown"]
    limited = Principal(accounts.needed(tx, "ann").id, "ann", patterns=("ann/*",))
    assert set(seen(limited, Search())) == {"ann/app", "team/shown"}


def test_an_invitation_works_once_and_lowers_nobody(tx: Tx) -> None:
    invitations.add(tx, "h1", "", "team", "member", "ann")
    assert invitations.accept(tx, "h1", "ann").organisation == "team"
    assert dict(orgs.members(tx, "team"))["ann"] == "owner"
    for used in ("h1", "h2"):
        with pytest.raises(Exception, match="not valid any more"):
            invitations.accept(tx, used, "ben")
    invitations.add(tx, "h3", "", "team", "editor", "ann")
    tx.run("UPDATE invitation SET expires = 1 WHERE hash = 'h3'")
    assert invitations.by_hash(tx, "h3") is None and invitations.open_ones(tx, "team") == []


def test_pulls_are_summed_by_day(tx: Tx) -> None:
    number = repositories.needed(tx, "ann/app").id
    insights.count(tx, {PullKey(number, "v1", "d", "docker"): 3, PullKey(number, "", "d", "podman"): 2})
    insights.count(tx, {PullKey(number, "v1", "e", "docker"): 1, PullKey(999, "x", "d", "docker"): 5})
    assert (
        insights.daily(tx, number, 3)[-1] == (insights.today(), 6) and len(insights.daily(tx, number, 3)) == 3
    )
    assert insights.split(tx, number, 7, "tag") == [("v1", 4), ("", 2)]
    assert insights.split(tx, number, 7, "client") == [("docker", 4), ("podman", 2)]
    insights.refresh_recent(tx)
    assert tx.one("SELECT recent_pulls FROM repository WHERE id = ?", number) == (6,)
    tx.run("UPDATE pull_daily SET day = day - 500")
    insights.refresh_recent(tx)
    assert tx.one("SELECT recent_pulls FROM repository WHERE id = ?", number) == (0,)
    assert insights.forget(tx, 400) == 2


def test_events_for_everybody_are_few(tx: Tx) -> None:
    events.note(tx, "ann", "192.0.2.1", "repository.grant", "ann/app", account="ben")
    events.note(tx, "ann", "192.0.2.1", "manifest.push", "ann/app")
    wanted = events.EventFilter(repository="ann/app", everything=False)
    assert [one.action for one in events.page(tx, wanted)] == ["manifest.push"]
    assert len(events.page(tx, events.EventFilter(repository="ann/app", action="repo"))) == 1
