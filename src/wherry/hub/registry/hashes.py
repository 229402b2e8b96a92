"""Hashes of uploads that are in progress on this replica.

The state of a hash cannot be stored, so a replica keeps it in memory during an upload. If it is lost (the
upload moved to another replica, or there are too many uploads), the whole object is read again at the end.
"""

from __future__ import annotations

from collections import OrderedDict

from wherry.hub.core import digests
from wherry.hub.core.digests import Hash

_MOST = 1024


class RunningHashes:
    """By upload: the number of hashed bytes, and the hash."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[str, tuple[int, Hash]] = OrderedDict()

    def take(self, upload: str, algorithm: str, offset: int) -> Hash | None:
        """Take the hash of the first ``offset`` bytes; none if it is not known."""
        if offset == 0:
            return digests.start(algorithm)
        at, known = self._hashes.pop(upload, (-1, None))
        return known if at == offset else None

    def put(self, upload: str, offset: int, known: Hash) -> None:
        self._hashes[upload] = (offset, known)
        while len(self._hashes) > _MOST:
            self._hashes.popitem(last=False)
