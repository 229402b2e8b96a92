"""``RUN --mount=type=cache``: directories that outlive builds, shared, private or one at a time."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from wherry.build.graph import MountOp, RunOp
from wherry.engine.builds.cache import BuildCache
from wherry.model.mount import Mount
from wherry.state.builds import CACHE_MOUNT
from wherry.storage import build_files
from wherry.storage.build_files import CopyJob, Part
from wherry.storage.children import Ending
from wherry.storage.selection import Wanted

_MODE = 0o755


class CacheMounts:
    """Used on the loop; directories are made on threads."""

    def __init__(self, cache: BuildCache) -> None:
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def locked(self, op: RunOp) -> AsyncIterator[Chosen]:
        """The directories of one RUN, those that are ``locked`` to itself."""
        chosen = Chosen(self, self._cache)
        async with AsyncExitStack() as stack:
            keys = sorted({_key(m, 0) for m in op.mounts if m.type == "cache" and m.sharing == "locked"})
            for key in keys:  # in order, so that two RUNs never wait for each other
                await stack.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
            try:
                yield chosen
            finally:
                await asyncio.shield(asyncio.to_thread(chosen.close))

    def take(self, mount: MountOp) -> str:
        """A key nobody else has now, for ``private``."""
        with self._lock:
            number = 0
            while (key := _key(mount, number)) in self._busy:
                number += 1
            self._busy.add(key)
            return key

    def give_back(self, key: str) -> None:
        with self._lock:
            self._busy.discard(key)


class Chosen:
    """The directories of one RUN."""

    def __init__(self, mounts: CacheMounts, cache: BuildCache) -> None:
        self._mounts, self._cache = mounts, cache
        self._private: list[str] = []
        self._records: list[str] = []

    def directory(self, mount: MountOp, first: Callable[[], Mount] | None) -> Path:
        """:param first: mounts what a new directory is filled from. Blocks."""
        if mount.sharing == "private":
            key = self._mounts.take(mount)
            self._private.append(key)
        else:
            key = _key(mount, 0)
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


def _key(mount: MountOp, number: int) -> str:
    """By id, and by what a new one is filled from, as that decides what is in it."""
    parts = ["cachemount", mount.id, mount.source >= 0, mount.path if mount.source >= 0 else "", number]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
