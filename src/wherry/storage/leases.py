"""Leases: while work is under way, they keep what it made from the collector.

A lease lives as long as its ``with``; those of a daemon that was killed are dropped at the next start, as
nothing of what they protected was finished. A resumed lease is for work that is taken up again: what it
keeps stays through failures and restarts, until the work is done or for :data:`KEPT` seconds.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wherry.model.digest import Digest
from wherry.state.content import LeaseRows

KEPT = 7 * 24 * 3600
_UNFINISHED = "unfinished "


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
        """Drops the leases of an earlier process, but for those of work that may be taken up again."""
        self._rows = rows
        self._lock = threading.Lock()
        self._resumed: Counter[str] = Counter()
        rows.delete_all(but=_UNFINISHED, since=time.time_ns() - KEPT * 10**9)

    @contextmanager
    def hold(self, why: str) -> Iterator[Lease]:
        """A lease for the length of the ``with``. ``why`` is for whoever looks into the database."""
        lease = Lease(self._rows, secrets.token_hex(12))
        self._rows.create(lease.id, why)
        try:
            yield lease
        finally:
            self._rows.delete(lease.id)

    @contextmanager
    def resume(self, work: str, *, worthwhile: Callable[[BaseException], bool]) -> Iterator[Lease]:
        """The lease of ``work``, with what an earlier try left behind.

        It goes with the end of the work; a failure that is ``worthwhile`` to continue after leaves it.
        """
        lease = Lease(self._rows, hashlib.sha256(work.encode()).hexdigest()[:24])
        with self._lock:
            self._resumed[lease.id] += 1
            self._rows.create(lease.id, _UNFINISHED + work)
        keep = False
        try:
            yield lease
        except BaseException as e:
            keep = worthwhile(e)
            raise
        finally:
            with self._lock:
                self._resumed[lease.id] -= 1
                if not self._resumed[lease.id]:
                    del self._resumed[lease.id]
                    if not keep:
                        self._rows.delete(lease.id)

    def forget_unfinished(self) -> None:
        """Give up what was to be continued and is not being worked at."""
        with self._lock:
            for lease in self._rows.named(_UNFINISHED):
                if lease not in self._resumed:
                    self._rows.delete(lease)
