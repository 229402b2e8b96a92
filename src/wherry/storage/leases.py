"""Leases: while work is under way, they keep what it made from the collector.

A lease lives as long as its ``with``; those of a daemon that was killed are dropped at the next start, as
nothing of what they protected was finished.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from wherry.model.digest import Digest
from wherry.state.content import LeaseRows


class Lease:
    """Names of things to keep; they need not exist yet."""

    def __init__(self, rows: LeaseRows, lease_id: str) -> None:
        self._rows = rows
        self.id = lease_id

    def keep_content(self, digest: Digest) -> None:
        self._rows.add(self.id, "content", digest)

    def keep_snapshot(self, key: str) -> None:
        self._rows.add(self.id, "snapshot", key)


class Leases:
    """Safe to use from any thread."""

    def __init__(self, rows: LeaseRows) -> None:
        """Drops the leases of an earlier process."""
        self._rows = rows
        rows.delete_all()

    @contextmanager
    def hold(self, why: str) -> Iterator[Lease]:
        """A lease for the length of the ``with``. ``why`` is for whoever looks into the database."""
        lease = Lease(self._rows, secrets.token_hex(12))
        self._rows.create(lease.id, why)
        try:
            yield lease
        finally:
            self._rows.delete(lease.id)
