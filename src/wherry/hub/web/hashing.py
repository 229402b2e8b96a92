"""Passwords with the parameters of :mod:`wherry.hub.auth.passwords`. If one side took the other's hash for
too weak, each log-in by a client would replace it, and a new hash ends all sessions."""

from __future__ import annotations

from django.contrib.auth.hashers import Argon2PasswordHasher
from django.utils.crypto import get_random_string


class HubHasher(Argon2PasswordHasher):
    time_cost = 3
    memory_cost = 64 << 10
    parallelism = 4

    def salt(self) -> str:
        """16 bytes, the length that the hub's clients' side makes."""
        return get_random_string(16)

    def must_update(self, encoded: str) -> bool:
        present = self.decode(encoded)["params"]
        wanted = self.params()
        wanted.salt_len = present.salt_len
        return bool(present != wanted)
