"""Leases: they protect the results of running work from the collector.

A lease lasts as long as its ``with``. The leases of a killed daemon are dropped at the next start, because
their work was not finished. A resumed lease is for work that can be continued: it survives failures and
restarts until the work is done, or for :data:`KEPT` seconds.
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
        """Drops the leases of an earlier process, except for work that may be continued."""
        self._rows = rows
        self._lock = threading.Lock()
        self._resumed: Counter[str] = Counter()
        rows.delete_all(but=_UNFINISHED, since=time.time_ns() - KEPT * 10**9)

    @contextmanager
    def hold(self, why: str) -> Iterator[Lease]:
        """A lease that lasts as long as the ``with``. ``why`` is for people who read the database."""
        lease = Lease(self._rows, secrets.token_hex(12))
        self._rows.create(lease.id, why)
        try:
            yield lease
        finally:
            self._rows.delete(lease.id)

    @contextmanager
    def resume(self, work: str, *, worthwhile: Callable[[BaseException], bool]) -> Iterator[Lease]:
        """The lease of ``work``, including what an earlier try protected.

        It ends with the work. After a failure that is ``worthwhile`` to continue, it stays if it protects
        anything.
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
                    if keep:
                        # Requests for unreachable registries must not leave a row each.
                        self._rows.delete_empty(lease.id)
                    else:
                        self._rows.delete(lease.id)

    def forget_unfinished(self) -> None:
        """Drop the leases of work that could be continued but is not running."""
        with self._lock:
            for lease in self._rows.named(_UNFINISHED):
                if lease not in self._resumed:
                    self._rows.delete(lease)
