"""Log-in of CI jobs: an OIDC token of a trusted issuer replaces the password.

A CI job runs ``docker login -u team+ci --password-stdin HUB`` with its token and is logged in as that robot
until the token expires. No secret is stored. The token is a JWT (RFC 7519). Its issuer, audience and subject
must match a trust of the robot, and it must be signed with one of the issuer's published keys.
"""

from __future__ import annotations

from typing import Any

from wherry.errors import InvalidArgument, Unavailable
from wherry.hub.core import globs
from wherry.hub.core.rights import Principal
from wherry.hub.remote.issuers import Issuers
from wherry.hub.store import teams
from wherry.hub.store.sql import HubDatabase
from wherry.hub.store.teams import Trust

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""Only public-key signatures: with a shared secret, everyone who can verify a token could also forge one."""
_LENGTH_MAX = 16 << 10
_LEEWAY = 30


class NotTrusted(Exception):
    """The token is not accepted; the reason is written to the log, not to the client."""


def is_one(secret: str) -> bool:
    """Whether the text has the form of a JWT: three parts, the first one a JSON object in base64."""
    return secret.startswith("eyJ") and secret.count(".") == 2 and len(secret) <= _LENGTH_MAX


class Identities:
    def __init__(self, db: HubDatabase, issuers: Issuers) -> None:
        self._db, self._issuers = db, issuers

    async def caller(self, robot: str, token: str) -> Principal:
        """:raises NotTrusted:"""
        import jwt  # only hubs with trusts need it

        try:
            claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as e:
            raise NotTrusted(str(e)) from e
        # Keys are requested only from issuers that this robot trusts.
        for trust in await self._db.read(lambda tx: teams.trusts(tx, robot)):
            if trust.issuer == claims.get("iss") and await self._fits(trust, token, header):
                return Principal(
                    trust.account, robot, subjects=(f"account:{trust.account}", f"trust:{trust.id}")
                )
        raise NotTrusted(f"no trust of {robot} matches the token")

    async def _fits(self, trust: Trust, token: str, header: dict[str, Any]) -> bool:
        import jwt

        if header.get("alg") not in _ALGORITHMS:
            raise NotTrusted(f"unsupported algorithm {str(header.get('alg'))[:20]!r}")
        try:
            key = await self._issuers.key(trust.issuer, str(header.get("kid", "")))
            if key is None:
                raise NotTrusted("the token is signed with a key that its issuer does not publish")
            claims = jwt.decode(
                token, jwt.PyJWK(key).key, algorithms=[header["alg"]], audience=trust.audience,
                issuer=trust.issuer, leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except (jwt.PyJWTError, Unavailable, InvalidArgument, ValueError) as e:
            raise NotTrusted(str(e)) from e
        return globs.matches(trust.subject, str(claims["sub"]))
