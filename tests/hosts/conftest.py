"""The alarm of the integration tests, for these as well."""

from __future__ import annotations

from alarm import alarm

HANG = 45
"""Seconds after which a whole test is taken to hang."""

no_hang = alarm(HANG)
