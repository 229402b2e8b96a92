"""Passwords with the parameters of :mod:`wherry.hub.auth.passwords`: log-ins by pages and by clients must not
replace each other's hashes in turn."""

from __future__ import annotations

from django.contrib.auth.hashers import Argon2PasswordHasher


class HubHasher(Argon2PasswordHasher):
    time_cost = 3
    memory_cost = 64 << 10
    parallelism = 4
