"""Secrets that the hub makes: personal tokens and refresh tokens.

They consist of ``wht_``, 43 characters, and 6 characters of a checksum: by the prefix and the checksum,
scanners for leaked secrets can recognise them. 256 random bits need no slow hash; their sha256 is stored.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib

PREFIX = "wht_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _checksum(text: str) -> str:
    number, found = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, len(_DIGITS))
        found += _DIGITS[digit]
    return found


def make() -> str:
    body = secrets.token_urlsafe(32)
    return f"{PREFIX}{body}{_checksum(body)}"


def is_one(text: str) -> bool:
    """Whether it has the right form: a cheap check before the database is asked."""
    body = text.removeprefix(PREFIX)
    return text.startswith(PREFIX) and len(body) == 49 and _checksum(body[:-6]) == body[-6:]


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def shown(secret: str) -> str:
    """Its first characters, to distinguish tokens in a list."""
    return secret[:10]
