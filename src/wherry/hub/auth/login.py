"""Turn credentials into a principal: account and password, or a token in place of the password."""

from __future__ import annotations

import base64
import binascii
import logging
from dataclasses import dataclass

from wherry.hub.auth import identities, passwords, secrets
from wherry.hub.auth.guesses import Guesses
from wherry.hub.auth.identities import Identities, NotTrusted
from wherry.hub.auth.passwords import Passwords
from wherry.hub.core.rights import Principal
from wherry.hub.remote.issuers import Issuers
from wherry.hub.store import accounts, teams
from wherry.hub.store.accounts import Account, Token
from wherry.hub.store.sql import HubDatabase, now

log = logging.getLogger(__name__)
_USED_EVERY = 3600
"""Seconds between two updates of a token's time of last use."""


class Wrong(Exception):
    """The credentials are wrong. There are no details, because they would help an attacker."""


class TooMany(Exception):
    """Too many wrong passwords; the argument is the seconds to wait."""


@dataclass(frozen=True)
class Basic:
    name: str
    secret: str


def basic(value: str) -> Basic:
    """Decode the credentials of a ``Basic`` header. :raises Wrong:"""
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError) as e:
        raise Wrong from e
    name, colon, secret = text.partition(":")
    if not colon or "\0" in text:
        raise Wrong
    return Basic(name, secret)


class Logins:
    """Checks credentials, and counts wrong passwords."""

    def __init__(self, db: HubDatabase, issuers: Issuers) -> None:
        self._db = db
        self._identities = Identities(db, issuers)
        self._passwords = Passwords()
        self._guesses = Guesses()

    async def caller(self, credentials: Basic, network: str) -> Principal:
        """
        :param network: the network of the client, to which limits apply.
        :raises Wrong: :raises TooMany: :raises Refusal: too many logins at once.
        """
        if secrets.is_one(credentials.secret):
            return await self._by_token(credentials.secret, credentials.name, "personal")
        if teams.ROBOT in credentials.name:
            return await self._by_identity(credentials)
        account = await self.by_password(credentials, network)
        return Principal(account.id, account.name, account.admin, subjects=(f"account:{account.id}",))

    async def _by_identity(self, credentials: Basic) -> Principal:
        """A robot has no password: tokens of the hub's own, or of an issuer that it trusts."""
        if not identities.is_one(credentials.secret):
            raise Wrong
        try:
            return await self._identities.caller(credentials.name.lower(), credentials.secret)
        except NotTrusted as e:
            log.info(
                "refused a token for %s: %s",
                credentials.name[:64].encode("unicode_escape").decode(),
                e,
            )
            raise Wrong from e

    async def by_refresh(self, secret: str) -> Principal:
        """:raises Wrong:"""
        if not secrets.is_one(secret):
            raise Wrong
        return await self._by_token(secret, "", "refresh")

    async def by_password(self, credentials: Basic, network: str) -> Account:
        """:raises Wrong: :raises TooMany:"""
        name = credentials.name.lower()[:128]
        if wait := self._guesses.wait(name, network):
            raise TooMany(wait)
        account = await self._db.read(lambda tx: accounts.by_name(tx, name))
        alone = account is not None and account.active and not account.second_factor
        hashed = account.password if account is not None and alone else ""
        if not await self._passwords.is_right(credentials.secret, hashed) or account is None:
            self._guesses.wrong(name, network)
            raise Wrong
        self._guesses.right(name, network)
        if self._passwords.wants_rehash(hashed):
            better = await passwords.make_soon(credentials.secret)
            await self._db.write(lambda tx: accounts.rehash(tx, account.id, hashed, better))
        return account

    async def _by_token(self, secret: str, name: str, kind: str) -> Principal:
        hashed = secrets.hashed(secret)
        token: Token | None = await self._db.read(lambda tx: accounts.token_by_hash(tx, hashed))
        if token is None or token.kind != kind or (name and name.lower() != token.account.name):
            raise Wrong
        if token.last_used is None or token.last_used < now() - _USED_EVERY:
            await self._db.write(lambda tx: accounts.touch_token(tx, token.id))
        return Principal(
            token.account.id,
            token.account.name,
            token.account.admin,
            scope=token.scope,
            patterns=token.patterns,
            subjects=(f"account:{token.account.id}", f"token:{token.id}"),
        )
