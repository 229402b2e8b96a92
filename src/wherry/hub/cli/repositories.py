"""``wherry-hub repository``, ``tag`` and ``undelete``: an operator's changes to content."""

from __future__ import annotations

import argparse
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.cli import stores
from wherry.hub.cli.accounts import ACTOR, Commands, finish, moment
from wherry.hub.cli.config import HubConfig, duration_or_never
from wherry.hub.cli.tables import table
from wherry.hub.core import digests, names
from wherry.hub.core.rights import LEVELS, Principal
from wherry.hub.store import accounts, events, manifests, repositories, tags
from wherry.hub.store.sql import Tx, now

_EVERYTHING = Principal(account=0, name=ACTOR, admin=True)


def add(commands: Commands) -> None:
    repository = commands.add_parser("repository", help="list repositories, who sees them, who may write")
    inside = repository.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    finish(inside.add_parser("ls", help="list repositories"), _list)
    for word, text in (("publish", "let everybody read it"), ("hide", "let only those read it who may")):
        one = inside.add_parser(word, help=text)
        one.add_argument("repository")
        finish(one, _visibility)
    grant = inside.add_parser("grant", help="give an account a level in a repository")
    grant.add_argument("repository")
    grant.add_argument("account")
    grant.add_argument("level", choices=[*LEVELS, "none"])
    finish(grant, _grant)
    rm = inside.add_parser("rm", help="delete a repository; it can be brought back for a while")
    rm.add_argument("repository")
    finish(rm, _remove)
    quota = inside.add_parser("quota", help="how many bytes a namespace may have")
    quota.add_argument("namespace")
    quota.add_argument("bytes", help="a number of bytes, or none")
    finish(quota, _quota)
    tag = commands.add_parser("tag", help="what a tag named, and bringing that back")
    inside = tag.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    history = inside.add_parser("history", help="what a tag named and when, the newest first")
    history.add_argument("tag", metavar="REPOSITORY:TAG")
    finish(history, _history)
    revert = inside.add_parser("revert", help="have a tag name an image again, deleted or not")
    revert.add_argument("tag", metavar="REPOSITORY:TAG")
    revert.add_argument("digest")
    finish(revert, _revert)
    expire = inside.add_parser("expire", help="have a tag go in a while, or stay")
    expire.add_argument("tag", metavar="REPOSITORY:TAG")
    expire.add_argument("time", help="7d, 12h, … or never")
    finish(expire, _expire)
    undelete = commands.add_parser("undelete", help="bring a deleted repository, or image, back")
    undelete.add_argument("what", metavar="REPOSITORY[@DIGEST]")
    finish(undelete, _undelete)


async def _write(settings: HubConfig, work: Any) -> None:
    async with stores.database(settings) as db:
        await db.write(work)


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(repositories.overview)
    rows = [
        (one.name, "public" if one.public else "private", str(one.tags), str(one.size), str(one.pulls),
         moment(one.pushed))
        for one in found
    ]  # fmt: skip
    print(table(("NAME", "VISIBILITY", "TAGS", "BYTES", "PULLS", "PUSHED"), rows))
    return 0


async def _visibility(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        repositories.set_public(tx, given.repository, given.subcommand == "publish")
        accounts.revoke(tx, f"repository:{given.repository}")
        events.note(tx, ACTOR, "", f"repository.{given.subcommand}", given.repository)

    await _write(settings, work)
    print(f"{given.repository} is {'public' if given.subcommand == 'publish' else 'private'}")
    return 0


async def _grant(given: argparse.Namespace, settings: HubConfig) -> int:
    level = None if given.level == "none" else given.level

    def work(tx: Tx) -> None:
        account = accounts.needed(tx, given.account)
        repositories.grant(tx, given.repository, account.id, level)
        accounts.revoke(tx, f"account:{account.id}")
        events.note(
            tx, ACTOR, "", "repository.grant", given.repository, account=account.name, level=given.level
        )

    await _write(settings, work)
    print(f"{given.account} has {given.level} in {given.repository}")
    return 0


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        repositories.delete(tx, given.repository)
        accounts.revoke(tx, f"repository:{given.repository}")
        events.note(tx, ACTOR, "", "repository.delete", given.repository)

    await _write(settings, work)
    print(f"{given.repository} deleted; wherry-hub undelete {given.repository} brings it back")
    return 0


async def _quota(given: argparse.Namespace, settings: HubConfig) -> int:
    if given.bytes != "none" and not given.bytes.isdigit():
        raise InvalidArgument("a quota is a number of bytes, or none")
    limit = None if given.bytes == "none" else int(given.bytes)

    def work(tx: Tx) -> None:
        repositories.set_quota(tx, given.namespace, limit)
        events.note(tx, ACTOR, "", "namespace.quota", namespace=given.namespace, bytes=limit)

    await _write(settings, work)
    print(f"namespace {given.namespace} may have {given.bytes} bytes" if limit else "no quota any more")
    return 0


def _parts(text: str) -> tuple[str, str]:
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise InvalidArgument(f"{text!r} has no tag: say REPOSITORY:TAG")
    return names.check_repository(name), names.check_tag(tag)


async def _history(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    async with stores.database(settings) as db:
        found = await db.scan(lambda tx: tags.history(tx, name, tag))
    rows = [(moment(one.at), one.cause, one.actor, one.digest or "(gone)") for one in found]
    print(table(("WHEN", "CAUSE", "WHO", "DIGEST"), rows))
    return 0


async def _revert(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    digest = digests.check(given.digest)

    def work(tx: Tx) -> None:
        manifests.undelete(tx, name, digest)
        tags.revert(tx, name, tag, digest, None, ACTOR, settings.settings())
        events.note(tx, ACTOR, "", "tag.revert", name, tag=tag, digest=digest)

    await _write(settings, work)
    print(f"{name}:{tag} is {digest}")
    return 0


async def _expire(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    seconds = duration_or_never(given.time)
    at = None if seconds is None else now() + seconds

    def work(tx: Tx) -> None:
        tags.expire(tx, name, tag, at)
        events.note(tx, ACTOR, "", "tag.expire", name, tag=tag, at=at)

    await _write(settings, work)
    print(f"{given.tag} {'stays' if at is None else f'goes at {moment(at)}'}")
    return 0


async def _undelete(given: argparse.Namespace, settings: HubConfig) -> int:
    name, _, digest = given.what.partition("@")
    names.check_repository(name)

    def work(tx: Tx) -> None:
        done = (
            manifests.undelete(tx, name, digests.check(digest)) if digest else repositories.undelete(tx, name)
        )
        if not done:
            raise NotFound(f"nothing deleted by that name is left: {given.what}")
        events.note(tx, ACTOR, "", "undelete", name, digest=digest)

    await _write(settings, work)
    print(f"{given.what} is back")
    return 0
