"""A user's credentials for a registry."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Credentials:
    """``identity_token`` is an OAuth2 refresh token; ``registry_token`` is sent as it is. ``server`` is their
    registry as the user wrote it; empty means the registry that is being asked."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, …)"

    @property
    def basic(self) -> str:
        """The value of ``Authorization`` (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()
