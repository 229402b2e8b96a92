"""Verify blobs while they are sent: data that the disk has damaged must not reach a client as intact."""

from __future__ import annotations

import hashlib

from wherry.errors import Internal
from wherry.model.digest import Digest


def damaged(digest: Digest, problem: str) -> Internal:
    return Internal(
        f"content {digest} is damaged: {problem}; `wherry system fsck --repair` fetches it again, or drops it"
    )


class Verifier:
    """Gets every piece of a blob in order; :meth:`check` says whether the blob is intact."""

    def __init__(self, digest: Digest, size: int) -> None:
        self._digest, self._size = digest, size
        self._hash, self.seen = hashlib.sha256(), 0

    def update(self, piece: bytes | memoryview) -> None:
        """Call this before sending the piece. If the blob is damaged, the last piece raises.

        :raises Internal: the blob is damaged.
        """
        self._hash.update(piece)
        self.seen += len(piece)
        if self.seen >= self._size:
            self.check()

    def check(self) -> None:
        """Call this at the end. :raises Internal: the blob is damaged."""
        if self.seen != self._size:
            raise damaged(self._digest, f"its file has {self.seen} bytes, not {self._size}")
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._digest:
            raise damaged(self._digest, f"its file has the digest {found}")
