"""Passwords: argon2id in Django's format (``argon2$argon2id$…``), so that both programs can read them.

A hash takes 64 MiB and 150 ms, so an attacker could overload us: two are computed at a time, a few wait, and
further requests are told to try again.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING

from wherry import threads
from wherry.errors import InvalidArgument
from wherry.hub.core.refusals import Refusal

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_PREFIX = "argon2"
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$+5G/X21uodnaJy11hile5Q$RcDb2+LT3jhQ0rSAO6wZVTYDiaxAK8CpbNNsd2Lh0/w"
"""A hash for accounts that do not exist, of the same cost as all others: their passwords take as long."""
_threads = threads.Pool("hub-passwords", 2)
_WAITING_MAX = 32
LENGTH_MIN, LENGTH_MAX = 8, 1024
_REMEMBERED_MAX = 10_000
_REMEMBERED = 300.0
"""Seconds for which a correct password is not hashed again: scripts send it with every request."""


@cache
def _hasher() -> PasswordHasher:
    import argon2  # a hub to which only tokens come does not need it

    return argon2.PasswordHasher()


def check(password: str) -> str:
    """:raises InvalidArgument: too short, or absurdly long."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise InvalidArgument(f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters")
    return password


def make(password: str) -> str:
    """The hash to keep. Takes 150 ms. Check its length before (:func:`check`)."""
    return _PREFIX + _hasher().hash(password)


async def make_soon(password: str) -> str:
    """The same, off the loop."""
    return await _threads(make, password)


class Passwords:
    """Checks passwords against hashes, off the loop."""

    def __init__(self) -> None:
        self._waiting = 0
        self._salt = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()

    async def is_right(self, password: str, hashed: str) -> bool:
        """Whether ``password`` matches ``hashed``; if that is empty, it takes as long and returns false.

        :raises Refusal: ``TOOMANYREQUESTS``: too many are being computed.
        """
        key = hashlib.sha256(self._salt + f"{hashed}\0{password}".encode()).digest()
        if self._right.get(key, 0.0) > time.monotonic():
            return True
        if self._waiting >= _WAITING_MAX:
            raise Refusal("TOOMANYREQUESTS", "too many logins at once", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            right = await _threads(self._work, password[:LENGTH_MAX], hashed)
        finally:
            self._waiting -= 1
        if right:
            self._remember(key)
        return right

    def _remember(self, key: bytes) -> None:
        self._right[key] = time.monotonic() + _REMEMBERED
        self._right.move_to_end(key)
        while len(self._right) > _REMEMBERED_MAX:
            self._right.popitem(last=False)

    def _work(self, password: str, hashed: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        known = hashed.startswith(_PREFIX)
        try:
            _hasher().verify(hashed.removeprefix(_PREFIX) if known else _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return False
        return known

    def wants_rehash(self, hashed: str) -> bool:
        """Whether it was made with weaker parameters than the current ones."""
        return _hasher().check_needs_rehash(hashed.removeprefix(_PREFIX))
