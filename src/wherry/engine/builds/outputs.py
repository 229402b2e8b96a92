"""Results that a client fetches: files of the last stage, or an image's archive. Kept for a while,
once each.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO

from wherry.build.solve import Result
from wherry.engine.builds.cache import BuildCache
from wherry.errors import Conflict, NotFound
from wherry.images import archive_save
from wherry.images.archive_save import Saved
from wherry.images.store import ImageStore
from wherry.linux.containerroot import Layer
from wherry.model.oci import Descriptor
from wherry.model.reference import Reference
from wherry.storage.containerfiles import Job

_KEPT = 600.0


@dataclass
class Ready:
    """The outputs of one build by their number; ``undo`` gives back what they hold."""

    produce: dict[int, Callable[[BinaryIO], None]] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)
    since: float = field(default_factory=time.monotonic)


class OutputStore:
    """Used on the loop; producing runs on threads."""

    def __init__(self, cache: BuildCache, images: ImageStore) -> None:
        self._cache, self._images = cache, images
        self._ready: dict[str, Ready] = {}

    def tree(self, ready: Ready, number: int, result: Result, epoch: int | None) -> None:
        """An archive of a result's files, none of them later than ``epoch`` (seconds). Blocks."""
        key, mount = self._cache.prepare(result)
        ready.undo.callback(self._cache.discard, key)

        role = ("export",) if epoch is None else ("export", str(epoch * 10**9))

        def produce(out: BinaryIO) -> None:
            Job().run(Layer(mount), role, what="cannot write the output", stdout=out.fileno())

        ready.produce[number] = produce

    def image(self, ready: Ready, number: int, target: Descriptor, names: list[Reference]) -> None:
        """An image's archive. The image is in the store as long as it is not fetched. Blocks."""
        known = self._images.rows.get(target.digest) is not None
        self._images.add(target)
        if not known:
            ready.undo.callback(self._forget, target)

        def produce(out: BinaryIO) -> None:
            image = self._images.resolve(target.digest)
            chosen = [Saved(target, image, name) for name in names] or [Saved(target, image, None)]
            archive_save.save_chosen(self._images, chosen, out)

        ready.produce[number] = produce

    def _forget(self, target: Descriptor) -> None:
        if not self._images.rows.names_of(target.digest):
            self._images.rows.delete(target.digest)
            self._images.collect()

    def keep(self, build: str, ready: Ready) -> None:
        """Until it is fetched, or forgotten. A build may have more than one."""
        known = self._ready.get(build)
        if known is not None:
            known.produce.update(ready.produce)
            known.undo.push(ready.undo.pop_all())
            return
        self._ready[build] = ready
        asyncio.get_running_loop().call_later(_KEPT, self._expire, build)

    def _expire(self, build: str) -> None:
        ready = self._ready.pop(build, None)
        if ready is not None:
            threading.Thread(target=ready.undo.close, daemon=True).start()

    def take(self, build: str, number: int) -> Callable[[BinaryIO], None]:
        """What writes an output. :raises NotFound: there is none. :raises Conflict: it was fetched
        already.
        """
        ready = self._ready.get(build)
        if ready is None:
            raise NotFound(f"No such build output: {build}")
        produce = ready.produce.pop(number, None)
        if produce is None:
            raise Conflict(f"output {number} of build {build} was fetched already, or is none")
        return produce

    async def done(self, build: str) -> None:
        """One was fetched; after the last nothing is kept."""
        ready = self._ready.get(build)
        if ready is not None and not ready.produce:
            del self._ready[build]
            await asyncio.to_thread(ready.undo.close)

    async def close(self) -> None:
        for build in list(self._ready):
            await asyncio.to_thread(self._ready.pop(build).undo.close)
