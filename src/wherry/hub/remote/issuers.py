"""Public keys of OIDC issuers, found by OpenID Connect Discovery 1.0; they verify the issuers' tokens."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from wherry.errors import InvalidArgument, Unavailable
from wherry.hub.core.reach import Rules
from wherry.hub.remote.outside import OutsideResolver

_LIFE = 600.0
"""Seconds for which fetched keys are used."""
_AGAIN = 30.0
"""Seconds between two fetches because of an unknown key id. Anybody can send an invented key id."""
_MOST = 256 << 10
_SECONDS = 10


def check(issuer: str) -> str:
    """:raises InvalidArgument: not a valid issuer URL. Plain http is allowed only for loopback."""
    parts = urlsplit(issuer)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme not in ("https", "http") or not parts.hostname or (parts.scheme == "http" and not local):
        raise InvalidArgument(f"invalid issuer {issuer[:100]!r}: use https://HOST/PATH")
    return issuer


class Issuers:
    """Keys by issuer, fetched on demand. The operator names the issuers. If an issuer keeps its keys on
    another host, that host must have a public address."""

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._keys: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = asyncio.Lock()

    async def key(self, issuer: str, kid: str) -> dict[str, Any] | None:
        """A key as JWK (RFC 7517); None if the issuer has no such key.

        :raises Unavailable: the issuer does not answer.
        """
        async with self._lock:
            when, keys = self._keys.get(issuer, (0.0, {}))
            age = time.monotonic() - when
            if not when or age > _LIFE or (kid not in keys and age > _AGAIN):
                keys = await self._fetch(issuer)
                self._keys[issuer] = time.monotonic(), keys
            found: dict[str, Any] | None = keys.get(kid)
            return found

    async def _fetch(self, issuer: str) -> dict[str, Any]:
        about = await self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration", issuer)
        if about.get("issuer") != issuer:
            raise Unavailable(
                f"{issuer} names another issuer in its configuration: {str(about.get('issuer'))[:100]!r}"
            )
        found = await self._json(str(about.get("jwks_uri", "")), issuer)
        keys = found.get("keys")
        return {str(key.get("kid", "")): key for key in keys if isinstance(key, dict)} if keys else {}

    async def _json(self, url: str, issuer: str) -> dict[str, Any]:
        here, there = urlsplit(check(url)), urlsplit(issuer)
        own = (here.scheme, here.netloc) == (there.scheme, there.netloc)
        port = here.port or (443 if here.scheme == "https" else 80)
        if not own and self._rules.bars(here.hostname or "", port):
            raise Unavailable(f"the keys of {issuer} are at {here.hostname}, which is not a public address")
        connector = (
            None if own else aiohttp.TCPConnector(resolver=OutsideResolver(self._rules), use_dns_cache=False)
        )
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=own) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(_MOST)
                if answer.status != 200:
                    raise Unavailable(f"{url}: status {answer.status}")
                made: Any = json.loads(body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
            raise Unavailable(f"{url} does not answer: {str(e) or type(e).__name__}") from e
        if not isinstance(made, dict):
            raise Unavailable(f"{url} did not return a JSON object")
        return made
