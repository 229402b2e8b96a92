"""``X-Registry-Auth`` and ``X-Registry-Config``: credentials as base64url of JSON (Engine API,
"Authentication")."""

from __future__ import annotations

import base64
import binascii

import msgspec

from wherry.errors import InvalidArgument
from wherry.model.credentials import ANONYMOUS, Credentials
from wherry.wire.gojson import decode

_SIZE_MAX = 64 << 10


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Docker's AuthConfig; ``auth`` is base64 of ``username:password``."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def credentials(self, server: str = "") -> Credentials:
        """:raises InvalidArgument: a malformed ``auth``."""
        username, password = self.username, self.password
        if self.auth and not username:
            name, colon, rest = _base64(self.auth, "auth").decode("utf-8", "replace").partition(":")
            if colon:
                username, password = name, rest.rstrip("\0")
        return Credentials(
            username=username,
            password=password,
            identity_token=self.identitytoken,
            registry_token=self.registrytoken,
            server=self.serveraddress or server,
        )


def parse_auth(header: str) -> Credentials:
    """The credentials of ``X-Registry-Auth``; empty for an empty header.

    :raises InvalidArgument: malformed.
    """
    data = _base64(header, "X-Registry-Auth").strip()
    if data in (b"", b"null"):
        return ANONYMOUS
    return decode(data, AuthConfig).credentials()


def parse_config(header: str) -> list[Credentials]:
    """The credentials of ``X-Registry-Config``, one for each registry. :raises InvalidArgument: malformed."""
    data = _base64(header, "X-Registry-Config").strip()
    if data in (b"", b"null"):
        return []
    return [auth.credentials(server) for server, auth in decode(data, dict[str, AuthConfig]).items()]


def _base64(text: str, what: str) -> bytes:
    """Decode either base64 alphabet, with or without padding: clients differ."""
    if len(text) > _SIZE_MAX:
        raise InvalidArgument(f"bad parameters for {what}: too long")
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as e:
        raise InvalidArgument(f"bad parameters for {what}: {e}") from e
