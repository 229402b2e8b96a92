"""``wherry-hub repository``, ``tag`` and ``undelete``."""

from __future__ import annotations

import argparse

from wherry.errors import InvalidArgument, NotFound
from wherry.hub.cli.common import ACTOR, Commands, change, command, finish, group, look, moment, note, shown
from wherry.hub.cli.config import HubConfig, duration_or_never
from wherry.hub.core import digests, names
from wherry.hub.core.rights import LEVELS, Principal
from wherry.hub.store import accounts, manifests, repositories, tags
from wherry.hub.store.sql import Tx, now

_EVERYTHING = Principal(account=0, name=ACTOR, admin=True)


def add(commands: Commands) -> None:
    inside = group(commands, "repository", "list repositories, and set who can read and write them")
    command(inside, "ls", "list repositories", _list)
    for word, text in (("publish", "make a repository public"), ("hide", "make a repository private")):
        one = inside.add_parser(word, help=text)
        one.add_argument("repository")
        finish(one, _visibility)
    grant = inside.add_parser("grant", help="grant an account a level in a repository, or none")
    grant.add_argument("repository")
    grant.add_argument("account")
    grant.add_argument("level", choices=[*LEVELS, "none"])
    finish(grant, _grant)
    command(inside, "rm", "delete a repository; undelete restores it for a while", _remove, "repository")
    quota = inside.add_parser("quota", help="limit the total size of a namespace")
    quota.add_argument("namespace")
    quota.add_argument("bytes", help="a number of bytes, or none")
    finish(quota, _quota)
    inside = group(commands, "tag", "show, revert and expire tags")
    command(
        inside,
        "history",
        "list the images that a tag pointed to, newest first",
        _history,
        "tag=REPOSITORY:TAG",
    )
    command(
        inside,
        "revert",
        "point a tag to an earlier image again, also to a deleted one",
        _revert,
        "tag=REPOSITORY:TAG",
        "digest",
    )
    expire = inside.add_parser("expire", help="set when a tag is deleted, or never")
    expire.add_argument("tag", metavar="REPOSITORY:TAG")
    expire.add_argument("time", help="7d, 12h, … or never")
    finish(expire, _expire)
    undelete = commands.add_parser("undelete", help="restore a deleted repository or image")
    undelete.add_argument("what", metavar="REPOSITORY[@DIGEST]")
    finish(undelete, _undelete)


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, repositories.overview)
    rows = [
        (one.name, "public" if one.public else "private", str(one.tags), str(one.size), str(one.pulls),
         moment(one.pushed))
        for one in found
    ]  # fmt: skip
    return shown(("NAME", "VISIBILITY", "TAGS", "BYTES", "PULLS", "PUSHED"), rows)


async def _visibility(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        repositories.set_public(tx, given.repository, given.subcommand == "publish")
        accounts.revoke(tx, f"repository:{given.repository}")
        note(tx, f"repository.{given.subcommand}", given.repository)

    await change(settings, work)
    print(f"{given.repository} is {'public' if given.subcommand == 'publish' else 'private'}")
    return 0


async def _grant(given: argparse.Namespace, settings: HubConfig) -> int:
    level = None if given.level == "none" else given.level

    def work(tx: Tx) -> None:
        account = accounts.needed(tx, given.account)
        repositories.grant(tx, given.repository, account.id, level)
        accounts.revoke(tx, f"account:{account.id}")
        note(tx, "repository.grant", given.repository, account=account.name, level=given.level)

    await change(settings, work)
    print(f"{given.account} has {given.level} in {given.repository}")
    return 0


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        repositories.delete(tx, given.repository)
        accounts.revoke(tx, f"repository:{given.repository}")
        note(tx, "repository.delete", given.repository)

    await change(settings, work)
    print(f"{given.repository} deleted; wherry-hub undelete {given.repository} brings it back")
    return 0


async def _quota(given: argparse.Namespace, settings: HubConfig) -> int:
    limit = None
    if given.bytes != "none":
        if not (given.bytes.isascii() and given.bytes.isdigit()) or len(given.bytes) > 18:
            raise InvalidArgument("a quota is a number of bytes, or none")
        limit = int(given.bytes)

    def work(tx: Tx) -> None:
        repositories.set_quota(tx, given.namespace, limit)
        note(tx, "namespace.quota", namespace=given.namespace, bytes=limit)

    await change(settings, work)
    print(
        f"namespace {given.namespace} may have {given.bytes} bytes"
        if limit is not None
        else "no quota any more"
    )
    return 0


def _parts(text: str) -> tuple[str, str]:
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise InvalidArgument(f"{text!r} has no tag: use REPOSITORY:TAG")
    return names.check_repository(name), names.check_tag(tag)


async def _history(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    found = await look(settings, lambda tx: tags.history(tx, name, tag))
    rows = [(moment(one.at), one.cause, one.actor, one.digest or "(gone)") for one in found]
    return shown(("WHEN", "CAUSE", "WHO", "DIGEST"), rows)


async def _revert(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    digest = digests.check(given.digest)

    def work(tx: Tx) -> None:
        manifests.undelete(tx, name, digest)
        tags.revert(tx, name, tag, digest, None, ACTOR, settings.settings())
        note(tx, "tag.revert", name, tag=tag, digest=digest)

    await change(settings, work)
    print(f"{name}:{tag} is {digest}")
    return 0


async def _expire(given: argparse.Namespace, settings: HubConfig) -> int:
    name, tag = _parts(given.tag)
    seconds = duration_or_never(given.time)
    at = None if seconds is None else now() + seconds

    def work(tx: Tx) -> None:
        tags.expire(tx, name, tag, at)
        note(tx, "tag.expire", name, tag=tag, at=at)

    await change(settings, work)
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
        note(tx, "undelete", name, digest=digest)

    await change(settings, work)
    print(f"{given.what} is back")
    return 0
