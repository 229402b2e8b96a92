"""``RUN --mount=type=cache``: directories that persist across builds: shared, private or locked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from wherry import threads
from wherry.engine.builds.cache import BuildCache
from wherry.model.mount import Mount
from wherry.solver.graph import MountOp, RunOp
from wherry.state.builds import CACHE_MOUNT
from wherry.storage.confined import build_files
from wherry.storage.confined.build_files import CopyJob, Part
from wherry.storage.confined.children import Ending
from wherry.storage.selection import Wanted

_MODE = 0o755
Seed = Callable[[MountOp], str]
"""The key of the files that a new directory is filled with; ``""`` for none."""


class CacheMounts:
    """Used on the loop; directories are made on threads."""

    def __init__(self, cache: BuildCache) -> None:
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def locked(self, op: RunOp, seed: Seed) -> AsyncIterator[Chosen]:
        """The directories of one RUN; those that are ``locked`` are exclusive to it."""
        chosen = Chosen(self, self._cache, seed)
        async with AsyncExitStack() as stack:
            locked = [m for m in op.mounts if m.type == "cache" and m.sharing == "locked"]
            keys = sorted({key_of(mount, seed(mount), 0) for mount in locked})
            for key in keys:  # in a fixed order, so that two RUNs never deadlock
                await stack.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
            try:
                yield chosen
            finally:
                await asyncio.shield(threads.child(chosen.close))

    def take(self, mount: MountOp, seed: str) -> str:
        """A key that nobody else uses now, for ``private``."""
        with self._lock:
            number = 0
            while (key := key_of(mount, seed, number)) in self._busy:
                number += 1
            self._busy.add(key)
            return key

    def give_back(self, key: str) -> None:
        with self._lock:
            self._busy.discard(key)


class Chosen:
    """The directories of one RUN."""

    def __init__(self, mounts: CacheMounts, cache: BuildCache, seed: Seed) -> None:
        self._mounts, self._cache, self._seed = mounts, cache, seed
        self._private: list[str] = []
        self._records: list[str] = []

    def directory(self, mount: MountOp, first: Callable[[], Mount] | None) -> Path:
        """:param first: mounts the files that a new directory is filled with. Blocks."""
        if mount.sharing == "private":
            key = self._mounts.take(mount, self._seed(mount))
            self._private.append(key)
        else:
            key = key_of(mount, self._seed(mount), 0)
        row = self._cache.place(CACHE_MOUNT, "cachemounts", key, f"mount {mount.target} with id {mount.id}")
        self._records.append(row.id)
        assert row.place is not None
        directory = self._cache.root / row.place
        if row.uses == 0:
            os.chown(directory, mount.uid, mount.gid)
            directory.chmod(_MODE if mount.mode is None else mount.mode)
            if first is not None:
                self._fill(directory, mount, first())
        return directory

    @staticmethod
    def _fill(directory: Path, mount: MountOp, source: Mount) -> None:
        wanted = Wanted([mount.path], into=True)
        job = CopyJob(path="/", into=True, parts=[Part(source, wanted)], owners=True)
        what = f"cannot fill cache mount {mount.target}"
        build_files.copy(Mount("bind", str(directory), ("rbind",)), job, what=what, ending=Ending())

    def close(self) -> None:
        """Blocks."""
        for key in self._private:
            self._mounts.give_back(key)
        self._cache.release(self._records)
        for record in self._records:
            self._cache.remeasure(record)


def key_of(mount: MountOp, seed: str, number: int) -> str:
    """The key: the id, and what determines a new directory's content: its source, owner and mode."""
    mode = _MODE if mount.mode is None else mount.mode
    parts = ["cachemount", mount.id, seed, mount.path if seed else "", mount.uid, mount.gid, mode, number]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
