"""What a page shows of one repository or one namespace, and changes to it."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.core import categories
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.store.repositories import VISIBLE, RepositoryRow, viewer
from wherry.hub.store.sql import Row, Tx

README_MAX = 256 << 10
TEXT_MAX = {"description": 200, "title": 100, "about": 2000, "link": 200}


@dataclass(frozen=True)
class RepositoryProfile:
    """``proxied``: a copy of another registry's repository."""

    id: int
    namespace_id: int
    name: str
    public: bool
    description: str
    readme: str
    categories: tuple[str, ...]
    platforms: tuple[str, ...]
    signed: bool
    archived: bool
    stars: int
    pulls: int
    created: int
    pushed: int | None
    tags: int
    proxied: bool

    @property
    def official(self) -> bool:
        return categories.is_official(self.name)

    @property
    def row(self) -> RepositoryRow:
        return RepositoryRow(self.id, self.namespace_id, self.name, self.public)


def repository(tx: Tx, name: str) -> RepositoryProfile | None:
    row = tx.one(
        "SELECT r.id, r.namespace_id, r.name, r.public, r.description, r.readme, r.categories, r.platforms,"
        " r.signed, r.archived, r.stars, r.pulls, r.created, r.pushed,"
        " (SELECT count(*) FROM tag t WHERE t.repository_id = r.id), r.proxy_id"
        " FROM repository r WHERE r.name = ? AND r.deleted IS NULL",
        name,
    )
    if row is None:
        return None
    return RepositoryProfile(
        int(row[0]), int(row[1]), row[2], bool(row[3]), row[4], row[5], tuple(row[6].split()),
        tuple(row[7].split()), bool(row[8]), bool(row[9]), int(row[10]), int(row[11]), int(row[12]), row[13],
        int(row[14]), row[15] is not None,
    )  # fmt: skip


def clean(name: str, text: str) -> str:
    """One of the texts of a profile, without control characters. :raises InvalidArgument: too long."""
    kept = "".join(c for c in text if c.isprintable() or (c == "\n" and name == "about")).strip()
    if len(kept) > TEXT_MAX[name]:
        raise InvalidArgument(f"{name}: at most {TEXT_MAX[name]} characters")
    return kept


def clean_link(text: str) -> str:
    """:raises InvalidArgument: not an https or http URL."""
    link = clean("link", text)
    if link and not link.startswith(("https://", "http://")):
        raise InvalidArgument("link: use https://…")
    return link


def describe(tx: Tx, repository: int, description: str, words: tuple[str, ...]) -> None:
    """:raises InvalidArgument:"""
    tx.run(
        "UPDATE repository SET description = ?, categories = ? WHERE id = ?",
        clean("description", description), categories.packed(words), repository,
    )  # fmt: skip


def set_readme(tx: Tx, repository: int, text: str) -> None:
    """:raises InvalidArgument: too large."""
    if len(text.encode()) > README_MAX:
        raise InvalidArgument(f"the README is larger than {README_MAX >> 10} KiB")
    kept = text.replace("\0", "").replace("\r\n", "\n")
    tx.run("UPDATE repository SET readme = ? WHERE id = ?", kept, repository)


def set_archived(tx: Tx, repository: int, archived: bool) -> None:
    tx.run("UPDATE repository SET archived = ? WHERE id = ?", archived, repository)


def check_open(tx: Tx, repository: int) -> None:
    """:raises Refusal: ``DENIED``: the repository is archived, so nothing in it changes."""
    row = tx.one("SELECT archived FROM repository WHERE id = ?", repository)
    if row is not None and row[0]:
        raise Refusal("DENIED", "the repository is archived: it can be read, but not changed")


@dataclass(frozen=True)
class NamespaceProfile:
    """``owner`` is the account whose namespace it is; None for an organisation."""

    id: int
    name: str
    owner: int | None
    title: str
    about: str
    link: str
    quota: int | None
    used: int
    created: int

    @property
    def kind(self) -> str:
        return "user" if self.owner is not None else "organisation"


_NAMESPACE = "SELECT id, name, owner_id, title, about, link, quota_bytes, used_bytes, created FROM namespace"


def _namespace(row: Row) -> NamespaceProfile:
    return NamespaceProfile(
        int(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], int(row[7]), int(row[8])
    )


def namespace(tx: Tx, name: str) -> NamespaceProfile | None:
    row = tx.one(f"{_NAMESPACE} WHERE name = ?", name)
    return _namespace(row) if row is not None else None


def set_namespace(tx: Tx, number: int, title: str, about: str, link: str) -> None:
    """:raises InvalidArgument:"""
    tx.run(
        "UPDATE namespace SET title = ?, about = ?, link = ? WHERE id = ?",
        clean("title", title), clean("about", about), clean_link(link), number,
    )  # fmt: skip


def spaces_of(tx: Tx, account: int) -> list[tuple[str, str]]:
    """The namespaces of an account with its role in each: its own first (``owner``)."""
    rows = tx.all(
        "SELECT name, 'owner', 0 FROM namespace WHERE owner_id = ?"
        " UNION ALL SELECT n.name, m.role, 1 FROM org_member m JOIN namespace n ON n.id = m.namespace_id"
        " WHERE m.account_id = ? ORDER BY 3, 1",
        account, account,
    )  # fmt: skip
    return [(row[0], row[1]) for row in rows]


def role_in(tx: Tx, account: int, namespace: int) -> str:
    """``owner``, ``editor``, ``member``; empty: none."""
    row = tx.one(
        "SELECT 'owner' FROM namespace WHERE id = ? AND owner_id = ?"
        " UNION ALL SELECT role FROM org_member WHERE namespace_id = ? AND account_id = ?",
        namespace, account, namespace, account,
    )  # fmt: skip
    return str(row[0]) if row is not None else ""


def has_visible(tx: Tx, caller: Principal, namespace: int) -> bool:
    """Whether the caller can read a repository of the namespace."""
    row = tx.one(
        f"SELECT 1 FROM repository r WHERE r.namespace_id = ? AND r.deleted IS NULL AND {VISIBLE} LIMIT 1",
        namespace, *viewer(caller),
    )  # fmt: skip
    return row is not None


def remove_organisation(tx: Tx, name: str) -> None:
    """Delete an organisation without repositories; its name stays taken.

    :raises NotFound: :raises InvalidArgument: it still has repositories.
    """
    found = namespace(tx, name)
    if found is None or found.owner is not None or not name:
        raise NotFound(f"no such organisation: {name}")
    if tx.one("SELECT 1 FROM repository WHERE namespace_id = ? AND deleted IS NULL LIMIT 1", found.id):
        raise InvalidArgument("delete or transfer the repositories of the organisation first")
    tx.run("UPDATE account SET active = FALSE WHERE name LIKE ?", f"{name}+%")
    for table in ("team", "org_member", "invitation"):
        tx.run(f"DELETE FROM {table} WHERE namespace_id = ?", found.id)
