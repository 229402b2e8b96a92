"""Object stores: objects under keys that the hub generates, one for each upload, never reused.

The digest of an object is stored in a row (``blob``), not in its name: a second push of the same bytes makes
a second object, so the removal of an old object never affects a new one. An object is *open* while an upload
writes it. ``state`` is the store's data about an open object; it is kept in the upload's row, so that another
replica can continue.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20
"""The size of reads and writes, in bytes. Smaller ones take several times the processor time."""


def new_key() -> str:
    """The key of a new upload's object: 128 random bits in hex."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class StoredObject:
    """An object in a list."""

    key: str
    size: int
    changed: float


class Appending(Protocol):
    """Writes an open object; only one request at a time may do so."""

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Add bytes. They may be written later, by :meth:`close` at the latest."""
        ...

    async def close(self) -> str:
        """Make everything written durable. :returns: the new state."""
        ...

    async def abandon(self) -> None:
        """Stop; bytes written since the last recorded state are discarded. Never raises."""
        ...


class Objects(Protocol):
    """Every method can also raise :class:`Full`, and :class:`Away` if the store is remote."""

    min_chunk: int
    """The smallest recommended size of an upload's chunks, in bytes; 0: any."""

    async def append(self, key: str, state: str, offset: int) -> Appending:
        """Continue an open object at ``offset``, which was recorded with ``state`` (empty: a new object).

        :raises Lost: the object has fewer bytes.
        """
        ...

    async def finish(self, key: str, state: str, size: int) -> None:
        """Complete an open object of ``size`` bytes, durably.

        :raises Lost: the object has another size.
        """
        ...

    async def discard(self, key: str, state: str) -> None:
        """Remove an open object, or one that was open. No error if it does not exist."""
        ...

    async def delete(self, *keys: str) -> None:
        """Remove complete objects. No error if one does not exist."""
        ...

    async def size(self, key: str) -> int | None:
        """The size of a complete object in bytes; None if it does not exist."""
        ...

    def path(self, key: str) -> Path | None:
        """The path of an object's file, for sendfile; None if objects are not files."""
        ...

    def read(self, key: str, first: int, last: int) -> AsyncIterator[bytes]:
        """Read bytes ``first`` to ``last``, both inclusive. :raises Lost:"""
        ...

    async def address(self, key: str, seconds: int) -> str | None:
        """A URL from which everybody can read the object for this many seconds; None if the store has no
        URLs."""
        ...

    def all(self) -> AsyncIterator[StoredObject]:
        """All objects, including open ones."""
        ...

    async def check_room(self, size: int) -> None:
        """Check the free space. :raises Full: there is no room for ``size`` more bytes."""
        ...

    async def close(self) -> None: ...

    def describe(self) -> str:
        """A description for people, without credentials."""
        ...


class ObjectLost(Exception):
    """An object is missing, or has the wrong size."""


class Full(Exception):
    """The store is full."""


class Away(Full):
    """The store does not answer, or refuses the request. Its objects are not lost."""
