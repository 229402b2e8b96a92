"""Bearer tokens: JSON web tokens of the registry's token scheme (distribution, "Token Authentication").

They are signed with ES256 by keys of our own (:mod:`~wherry.hub.auth.signing`). Two keys are valid at a time,
so that a key can be replaced without an interruption. A checked token is cached until it
expires, because a pull sends the same one a dozen times. Revoked tokens end sooner: every replica reads the
rows of revocations every few seconds.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from wherry.hub.auth.signing import Forged, SigningKey, new_pem
from wherry.hub.core.rights import SCOPES, Actions, Principal
from wherry.hub.store import accounts
from wherry.hub.store.sql import HubDatabase, Tx

LIFE = 300
"""Seconds that a token is valid."""
_KEYS = 2
_KNOWN_MAX = 10_000
_LENGTH_MAX = 16 << 10


class Invalid(Exception):
    """An invalid bearer token; the text has the reason."""


def new_key() -> tuple[str, str]:
    """A key id and a private key as PEM."""
    return secrets.token_hex(8), new_pem()


def ensure_key(tx: Tx) -> None:
    if not accounts.signing_keys(tx):
        accounts.add_signing_key(tx, *new_key())


def rotate(tx: Tx) -> str:
    """Make a new key; the previous one stays valid for existing tokens."""
    kid, pem = new_key()
    accounts.add_signing_key(tx, kid, pem)
    accounts.drop_signing_keys(tx, _KEYS)
    return kid


class Tokens:
    """Makes bearer tokens and checks them."""

    def __init__(self, service: str) -> None:
        """:param service: the issuer and audience of tokens, as in the challenge."""
        self.service = service
        self._keys: dict[str, SigningKey] = {}
        self._newest: SigningKey | None = None
        self._known: OrderedDict[bytes, tuple[float, float, Principal]] = OrderedDict()
        self._revoked: dict[str, float] = {}
        self._seen = 0

    async def refresh(self, db: HubDatabase) -> None:
        """Read keys and revocations anew."""
        keys, revoked = await db.read(
            lambda tx: (accounts.signing_keys(tx), accounts.revocations(tx, self._seen))
        )
        if [kid for kid, _ in keys] != [key.kid for key in self._keys.values()]:
            loaded = [SigningKey(kid, pem) for kid, pem in keys]
            self._keys = {key.head: key for key in loaded}
            self._newest = loaded[0] if loaded else None
            self._known.clear()
        for number, subject, moment in revoked:
            self._seen = max(self._seen, number)
            self._revoked[subject] = max(self._revoked.get(subject, 0.0), moment)
        horizon = time.time() - 2 * LIFE
        for subject in [s for s, moment in self._revoked.items() if moment < horizon]:
            del self._revoked[subject]

    def make(self, caller: Principal, access: Mapping[str, Actions], *, catalog: bool = False) -> str:
        """A token that allows ``caller`` the actions in ``access``: repository -> actions."""
        assert self._newest is not None
        moment = time.time()
        listed = [
            {"type": "repository", "name": name, "actions": sorted(actions)}
            for name, actions in access.items()
            if actions
        ]
        if catalog:
            listed.append({"type": "registry", "name": "catalog", "actions": ["*"]})
        claims = {
            "iss": self.service,
            "aud": self.service,
            "sub": caller.name,
            "iat": moment,
            "nbf": int(moment) - 1,
            "exp": int(moment) + LIFE,
            "jti": secrets.token_hex(8),
            "access": listed,
            "wherry": {
                "account": caller.account,
                "admin": caller.admin,
                "scope": caller.scope,
                "patterns": caller.patterns,
                "subjects": caller.subjects,
            },
        }
        return self._newest.sign(claims)

    def check(self, token: str) -> Principal:
        """The token's owner and what it allows. :raises Invalid: it is not valid."""
        if len(token) > _LENGTH_MAX:
            raise Invalid("too long")
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known is None or known[1] <= time.time():
            known = self._checked(token)
            self._known[key] = known
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        made, _, caller = known
        if self._revoked:
            for subject in (*caller.subjects, *(f"repository:{name}" for name in caller.access or ())):
                if made <= self._revoked.get(subject, 0.0):
                    raise Invalid("revoked")
        return caller

    def _checked(self, token: str) -> tuple[float, float, Principal]:
        signer = self._keys.get(token.partition(".")[0])
        if signer is None:
            raise Invalid("signed by none of our keys")
        moment = time.time()
        try:
            claims = signer.claims(token)
            if claims["aud"] != self.service or claims["iss"] != self.service:
                raise Invalid("for another service")
            begins, ends = float(claims["nbf"]), float(claims["exp"])
            if not begins <= moment < ends:
                raise Invalid("expired" if moment >= ends else "not valid yet")
            return float(claims["iat"]), ends, _caller(claims)
        except (Forged, KeyError, TypeError, ValueError) as e:
            raise Invalid(str(e)) from e


def _caller(claims: dict[str, Any]) -> Principal:
    """Decode a signed part, which we wrote ourselves."""
    access: dict[str, Actions] = {}
    catalog = False
    for one in claims["access"]:
        if one["type"] == "repository":
            access[one["name"]] = frozenset(one["actions"])
        elif one["type"] == "registry":
            catalog = True
    ours = claims["wherry"]
    if ours["scope"] not in SCOPES:
        raise ValueError("unknown scope")
    return Principal(
        ours["account"], claims["sub"], bool(ours["admin"]), access, catalog, ours["scope"],
        tuple(ours["patterns"]), tuple(ours["subjects"]),
    )  # fmt: skip
