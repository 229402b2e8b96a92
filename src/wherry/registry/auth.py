"""Authentication at a registry: anonymous, by name and password, or by token.

The registry answers 401 with a challenge; a Bearer challenge names a realm that issues tokens (Docker's
"Token Authentication Specification" and "OAuth2"). Tokens are kept by scope for one operation. Credentials
are sent to a realm only over TLS; without TLS only to this machine, or to the registry's own host if the
registry is used without TLS as well. A realm's redirects are not followed.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from yarl import URL

from wherry.model.credentials import Credentials
from wherry.registry.config import address_of, host_name
from wherry.registry.errors import BROKEN, DENIED, REFUSED, TOO_MANY, UNAUTHORIZED, RegistryError, clean
from wherry.registry.transport import Session, origin_of, read_bounded, shown

CLIENT_ID = "wherry"
_TOKEN_ANSWER_MAX = 1 << 20
_EXPIRES = 60
_EARLY = 10
_CHALLENGE = re.compile(r"\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$|,)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*')


@dataclass(frozen=True)
class Challenge:
    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Challenges of ``WWW-Authenticate`` (RFC 9110, 11.6.1); malformed ones are left out."""
    found = []
    for header in headers:
        at = 0
        while (match := _CHALLENGE.match(header, at)) is not None:
            at = match.end()
            parameters: dict[str, str] = {}
            while (part := _PARAMETER.match(header, at)) is not None:
                quoted = part[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else part[3]
                parameters.setdefault(part[1].lower(), value)
                at = part.end()
            found.append(Challenge(match[1].lower(), parameters))
            while at < len(header) and header[at] in ", ":
                at += 1
    return found


@dataclass
class _Token:
    value: str
    expires: float


class Authorizer:
    """Authorization for one registry, for one operation.

    :ivar issued: the refresh token that the realm issued on request.
    """

    def __init__(
        self, session: Session, base: URL, credentials: Credentials, *, insecure: bool, offline: bool = False
    ) -> None:
        self._session, self._base, self._insecure = session, base, insecure
        self._credentials, self._offline = credentials, offline
        self._challenge: Challenge | None = None
        self._tokens: dict[str, _Token] = {}
        self._asking = asyncio.Lock()
        self.issued = ""

    async def header(self, scope: str) -> str:
        """The current value of ``Authorization``; empty before the first challenge.

        :param scope: one, or several with spaces between.

        :raises RegistryError: the realm refuses.
        """
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._challenge is None:
            return ""
        if self._challenge.scheme == "basic":
            return self._credentials.basic if self._credentials.username else ""
        async with self._asking:  # parallel requests share one token
            token = self._tokens.get(scope)
            if token is None or token.expires < time.monotonic():
                token = self._tokens[scope] = await self._fetch(self._challenge, scope)
        return f"Bearer {token.value}"

    def challenged(self, headers: Iterable[str], scope: str, sent: str) -> bool:
        """Handle a 401. :returns: whether another try makes sense: it would send something other than
        ``sent``.

        Never call it with a challenge from another machine than the registry.
        """
        known = parse_challenges(headers)
        chosen = next((c for c in known if c.scheme == "bearer" and c.parameters.get("realm")), None)
        chosen = chosen or next((c for c in known if c.scheme == "basic"), None)
        if chosen is None or self._credentials.registry_token:
            return False
        self._challenge = chosen
        if chosen.scheme == "basic":
            return bool(self._credentials.username) and sent != self._credentials.basic
        held = self._tokens.get(scope)
        if held is not None and sent == f"Bearer {held.value}":
            del self._tokens[scope]
        return True

    async def _fetch(self, challenge: Challenge, scope: str) -> _Token:
        realm = self._realm(challenge.parameters["realm"])
        scopes = _joined(f"{scope} {challenge.parameters.get('scope', '')}".split())
        fields: list[tuple[str, str]] = []
        if challenge.parameters.get("service"):
            fields.append(("service", challenge.parameters["service"]))
        authorization = ""
        body = None
        headers = {}
        if self._credentials.identity_token:
            fields += [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", self._credentials.identity_token),
                ("scope", " ".join(scopes)),
            ]
            body, method = urlencode(fields).encode(), "POST"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            fields += [("scope", one) for one in scopes]
            if self._credentials.username:
                fields.append(("account", self._credentials.username))
                authorization = self._credentials.basic
            if self._offline:
                fields += [("offline_token", "true"), ("client_id", CLIENT_ID)]
            method = "GET"
            realm = realm.extend_query(fields)
        insecure = self._session.config.is_insecure(shown(realm)) or (
            self._insecure and realm.host == self._base.host
        )
        async with self._session.send(
            method,
            realm,
            headers=headers,
            authorization=authorization,
            body=body,
            insecure=insecure,
            follow=False,
        ) as response:
            data = await read_bounded(
                response, _TOKEN_ANSWER_MAX, shown(realm), timeout=self._session.config.timeout
            )
            if response.status != 200:
                retry = response.headers.get("Retry-After", "")
                raise self._refusal(realm, response.status, data, retry)
        return self._token(realm, data)

    def _realm(self, text: str) -> URL:
        host = shown(self._base)
        try:
            realm = URL(text)
            fine = realm.scheme in ("http", "https") and bool(realm.host) and not realm.user
        except ValueError:
            fine = False
        if not fine:
            raise RegistryError(host, REFUSED, f"its token realm {text!r} is not a URL")
        if realm.scheme == "https":
            return realm
        address = address_of(shown(realm))
        loopback = host_name(shown(realm)) == "localhost" or (address is not None and address.is_loopback)
        in_the_clear = self._base.scheme == "http" and self._insecure
        if in_the_clear and (loopback or realm.host == self._base.host):
            return realm
        raise RegistryError(host, REFUSED, f"its token realm {text!r} is not https")

    def _refusal(self, realm: URL, status: int, data: bytes, retry_after: str) -> RegistryError:
        reason = _reason(data)
        at = f" (token server {shown(realm)})" if origin_of(realm) != origin_of(self._base) else ""
        host = shown(self._base)
        if status == 429:
            seconds = float(retry_after) if retry_after.isdigit() else None
            text = f"{reason or 'too many requests'}{at}"
            return RegistryError(host, TOO_MANY, text, status=status, retry_after=seconds)
        if status in (400, 401):
            text = reason or "incorrect username or password"
            return RegistryError(host, UNAUTHORIZED, text + at, status=401)
        if status == 403:
            text = reason or "requested access to the resource is denied"
            return RegistryError(host, DENIED, text + at, status=status)
        return RegistryError(host, BROKEN, f"{reason or f'HTTP status {status}'}{at}", status=status)

    def _token(self, realm: URL, data: bytes) -> _Token:
        try:
            raw = json.loads(data)
            value = raw.get("token") or raw.get("access_token")
            seconds = raw.get("expires_in") or _EXPIRES
            seconds = seconds if isinstance(seconds, int | float) and seconds > 0 else _EXPIRES
        except (ValueError, AttributeError, RecursionError):
            value = None
        if not isinstance(value, str) or not value or not value.isprintable():
            raise RegistryError(shown(self._base), REFUSED, f"its token server {shown(realm)} gives no token")
        if self._offline and isinstance(raw.get("refresh_token"), str):
            self.issued = raw["refresh_token"]
        return _Token(value, time.monotonic() + max(1.0, min(seconds, 3600) - _EARLY))


def _joined(scopes: Iterable[str]) -> list[str]:
    """Each resource once with all wanted actions, in the original order."""
    found: dict[str, list[str]] = {}
    for scope in scopes:
        resource, _, actions = scope.rpartition(":")
        found.setdefault(resource, []).extend(actions.split(","))
    return [f"{resource}:{','.join(dict.fromkeys(actions))}" for resource, actions in found.items()]


def _reason(data: bytes) -> str:
    """The error text in the body of a refusal."""
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(raw, dict):
        return ""
    errors = raw.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return clean(str(errors[0].get("message") or errors[0].get("code") or ""))
    for name in ("error_description", "details", "message", "error"):
        if isinstance(raw.get(name), str):
            return clean(raw[name])
    return ""
