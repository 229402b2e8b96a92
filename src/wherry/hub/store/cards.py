"""Repositories in lists: search with filters, the front page, namespaces. A list has only what the caller can
read; the condition is a part of each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.hub.core import categories, rights
from wherry.hub.core.rights import Principal
from wherry.hub.store.repositories import VISIBLE, viewer
from wherry.hub.store.sql import Row, Tx, now

DAY = 86400
SORTS = {
    "pulls": "r.pulls DESC, r.name DESC",
    "stars": "r.stars DESC, r.name DESC",
    "updated": "r.pushed DESC, r.name DESC",
    "created": "r.created DESC, r.name DESC",
    "recent": "r.recent_pulls DESC, r.name DESC",
    "name": "r.name",
}
"""Each follows an index, so that a page of the newest or the most used needs no sort of all."""


@dataclass(frozen=True)
class Card:
    """A repository as a list shows it."""

    name: str
    public: bool
    description: str
    pulls: int
    stars: int
    pushed: int | None
    platforms: tuple[str, ...]
    categories: tuple[str, ...]
    signed: bool
    archived: bool

    @property
    def official(self) -> bool:
        return categories.is_official(self.name)


@dataclass(frozen=True)
class Search:
    """:ivar words: all of them are in the name or the description.
    :ivar within: pushed within this many days; 0: at any time.
    """

    words: tuple[str, ...] = ()
    namespace: str = ""
    official: bool = False
    signed: bool = False
    architecture: str = ""
    os: str = ""
    category: str = ""
    within: int = 0
    sort: str = "pulls"
    starred_by: int | None = None
    archived: bool = True
    public: bool = False
    """Only what everybody can read, also for those who can read more."""


_CARD = (
    "r.name, r.public, r.description, r.pulls, r.stars, r.pushed, r.platforms, r.categories, r.signed,"
    " r.archived"
)


def _card(row: Row) -> Card:
    return Card(
        row[0], bool(row[1]), row[2], int(row[3]), int(row[4]), row[5], tuple(row[6].split()),
        tuple(row[7].split()), bool(row[8]), bool(row[9]),
    )  # fmt: skip


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def find(tx: Tx, caller: Principal, asked: Search, count: int, skip: int = 0) -> list[Card]:
    """A page of the repositories that match and that the caller can read."""
    where, values = ["r.deleted IS NULL"], list[object]()

    def add(condition: str, *more: object) -> None:
        where.append(condition)
        values.extend(more)

    if caller.known:
        add(VISIBLE, *viewer(caller))
    else:
        add("r.public")  # the planner can keep to the index of the order then
    for word in asked.words:
        # Most repositories have no description, and lower() takes longer than the rest.
        add(
            "(r.name LIKE ? ESCAPE '\\' OR (r.description <> '' AND lower(r.description) LIKE ? ESCAPE"
            " '\\'))",
            f"%{_literal(word)}%", f"%{_literal(word)}%",
        )  # fmt: skip
    if asked.namespace:
        add("r.namespace_id = (SELECT id FROM namespace WHERE name = ?)", asked.namespace)
    if asked.official:
        add("r.namespace_id IN (SELECT id FROM namespace WHERE name IN ('', 'library'))")
    if asked.signed:
        add("r.signed")
    if asked.architecture:
        add("r.platforms LIKE ? ESCAPE '\\'", f"%/{_literal(asked.architecture)} %")
    if asked.os:
        add("r.platforms LIKE ? ESCAPE '\\'", f"% {_literal(asked.os)}/%")
    if asked.category:
        add("r.categories LIKE ? ESCAPE '\\'", f"% {_literal(asked.category)} %")
    if asked.within:
        add("r.pushed > ?", now() - asked.within * DAY)
    if asked.starred_by is not None:
        add("r.id IN (SELECT repository_id FROM star WHERE account_id = ?)", asked.starred_by)
    if asked.sort == "recent":
        add("r.recent_pulls > 0")
    if asked.sort == "updated":
        add("r.pushed IS NOT NULL")
    if asked.public:
        add("r.public")
    if not asked.archived:
        add("NOT r.archived")
    rows = tx.all(
        f"SELECT {_CARD} FROM repository r WHERE {' AND '.join(where)} ORDER BY {SORTS[asked.sort]}"
        " LIMIT ? OFFSET ?",
        *values, count, skip,
    )  # fmt: skip
    found = [_card(row) for row in rows]
    if not caller.patterns and caller.scope != "public_read":
        return found
    return [
        one
        for one in found
        if rights.PULL in rights.limited(caller, one.name, rights.READ, public=one.public)
    ]


def counts(tx: Tx) -> tuple[int, int, int]:
    """The number of public repositories, of accounts, and of all pulls: for the front page."""
    found = [
        tx.one("SELECT count(*) FROM repository WHERE public AND deleted IS NULL"),
        tx.one("SELECT count(*) FROM account WHERE active"),
        tx.one("SELECT coalesce(sum(pulls), 0) FROM repository"),
    ]
    one, two, three = (int(row[0]) if row is not None else 0 for row in found)
    return one, two, three


def feed(tx: Tx, caller: Principal, account: int, count: int) -> Sequence[Row]:
    """What happened lately in what an account follows: time, actor, action, repository, detail of each
    event. Repositories that it cannot read (any more) are left out."""
    return tx.all(
        "SELECT e.at, e.actor, e.action, e.repository, e.detail FROM event e JOIN repository r"
        " ON r.name = e.repository AND r.deleted IS NULL"
        " WHERE e.action IN ('manifest.push', 'tag.delete', 'tag.revert', 'manifest.delete')"
        " AND (r.id IN (SELECT repository_id FROM follow WHERE account_id = ?)"
        f" OR r.namespace_id IN (SELECT namespace_id FROM follow WHERE account_id = ?)) AND {VISIBLE}"
        " ORDER BY e.id DESC LIMIT ?",
        account, account, *viewer(caller), count,
    )  # fmt: skip
