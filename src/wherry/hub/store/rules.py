"""Rows of rules for tags. ``immutable``: tags cannot be moved or deleted. ``retain``: old tags are deleted.
``signed``: images can be pulled only if they are signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.errors import NotFound
from wherry.hub.core import globs
from wherry.hub.core.refusals import Refusal
from wherry.hub.store.sql import Tx, now

IMMUTABLE, RETAIN, SIGNED = "immutable", "retain", "signed"


@dataclass(frozen=True)
class RetentionRule:
    """:ivar keep_last: the number of newest tags to keep. :ivar keep_seconds: tags pushed or pulled within
    this time (in seconds) are kept. :ivar key: for ``signed``: the public key (PEM)."""

    id: int
    kind: str
    repository: str
    tags: str
    keep_last: int | None
    keep_seconds: int | None
    key: str = ""

    def concerns(self, tag: str) -> bool:
        """Whether the rule applies to a tag of its repositories. It always applies to a pull by digest (empty
        tag)."""
        return not tag or globs.matches(self.tags, tag)


def add(
    tx: Tx,
    kind: str,
    repository: str,
    tags: str,
    keep_last: int | None = None,
    keep_seconds: int | None = None,
    key: str = "",
) -> int:
    row = tx.one(
        "INSERT INTO tag_rule (kind, repository, tags, keep_last, keep_seconds, public_key, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        kind, globs.check(repository), globs.check(tags), keep_last, keep_seconds, key or None, now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def all_of(tx: Tx, kind: str = "") -> list[RetentionRule]:
    rows = tx.all(
        "SELECT id, kind, repository, tags, keep_last, keep_seconds, public_key FROM tag_rule"
        " WHERE ? = '' OR kind = ? ORDER BY id",
        kind, kind,
    )  # fmt: skip
    return [RetentionRule(int(row[0]), row[1], row[2], row[3], row[4], row[5], row[6] or "") for row in rows]


def signed(tx: Tx, repository: str) -> list[RetentionRule]:
    """The rules that require signatures in a repository."""
    return [rule for rule in all_of(tx, SIGNED) if globs.matches(rule.repository, repository)]


def remove(tx: Tx, rule: int) -> None:
    """:raises NotFound:"""
    if not tx.run("DELETE FROM tag_rule WHERE id = ?", rule):
        raise NotFound(f"no such rule: {rule}")


def is_immutable(rules: list[RetentionRule], repository: str, tag: str) -> RetentionRule | None:
    for rule in rules:
        if globs.matches(rule.repository, repository) and globs.matches(rule.tags, tag):
            return rule
    return None


def check_mutable(tx: Tx, repository: str, tag: str) -> None:
    """:raises Refusal: ``DENIED``."""
    rule = is_immutable(all_of(tx, IMMUTABLE), repository, tag)
    if rule is not None:
        raise Refusal(
            "DENIED",
            f"tag {tag} of {repository} is immutable (rule {rule.id}: {rule.tags} of {rule.repository})",
            detail={"tag": tag, "rule": rule.id},
        )


@dataclass(frozen=True)
class Leaving:
    """A tag that a rule deletes: the tag, its age, and the rule."""

    repository: str
    tag: str
    digest: str
    used: int
    rule: int


def leaving(tx: Tx) -> list[Leaving]:
    """The tags that retention deletes now; a dry run shows the same. A tag that matches several rules is
    deleted only if none of them keeps it. An immutable tag is not deleted."""
    kept, fixed = all_of(tx, RETAIN), all_of(tx, IMMUTABLE)
    if not kept:
        return []
    found: list[Leaving] = []
    for number, name in tx.all("SELECT id, name FROM repository WHERE deleted IS NULL ORDER BY name"):
        mine = [rule for rule in kept if globs.matches(rule.repository, name)]
        if mine:
            found += _leaving(tx, int(number), name, mine, fixed)
    return found


def leaving_of(tx: Tx, repository: int, name: str, more: Sequence[RetentionRule] = ()) -> list[Leaving]:
    """The same for one repository, with ``more`` rules than there are: for dry runs."""
    mine = [rule for rule in (*all_of(tx, RETAIN), *more) if globs.matches(rule.repository, name)]
    return _leaving(tx, repository, name, mine, all_of(tx, IMMUTABLE)) if mine else []


def _leaving(
    tx: Tx, number: int, name: str, kept: list[RetentionRule], fixed: list[RetentionRule]
) -> list[Leaving]:
    rows = tx.all(
        "SELECT t.name, t.updated, t.last_pulled, m.digest FROM tag t JOIN manifest m ON m.id = t.manifest_id"
        " WHERE t.repository_id = ? ORDER BY t.updated DESC, t.name DESC",
        number,
    )
    going: dict[str, Leaving] = {}
    staying: set[str] = set()
    for rule in kept:
        place = 0
        for tag, updated, pulled, digest in rows:
            if not globs.matches(rule.tags, tag):
                continue
            place += 1
            used = max(int(updated), int(pulled or 0))
            newest = rule.keep_last is not None and place <= rule.keep_last
            recent = rule.keep_seconds is not None and used > now() - rule.keep_seconds
            if newest or recent or is_immutable(fixed, name, tag) is not None:
                staying.add(tag)
            else:
                going[tag] = Leaving(name, tag, digest, used, rule.id)
    return [one for tag, one in sorted(going.items()) if tag not in staying]
