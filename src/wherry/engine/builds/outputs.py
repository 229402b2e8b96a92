"""Outputs that a client fetches: files of the last stage, or an image's archive. They are kept for a
while, and can be fetched once.
"""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from wherry import threads
from wherry.engine.builds.cache import BuildCache
from wherry.errors import Conflict, NotFound
from wherry.images import archive_save
from wherry.images.archive_save import Saved
from wherry.images.store import ImageStore
from wherry.linux.containerroot import LayerMounts
from wherry.model.mount import Mount
from wherry.model.oci import Descriptor
from wherry.model.reference import Reference
from wherry.solver.solve import Result
from wherry.storage.confined.containerfiles import Job

_KEPT = 600.0


@dataclass
class Ready:
    """The outputs of one build by number; ``undo`` releases what they hold."""

    produce: dict[int, Callable[[BinaryIO], None]] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)
    since: float = field(default_factory=time.monotonic)


class OutputStore:
    """Used on the loop; archives are written on threads."""

    def __init__(self, cache: BuildCache, images: ImageStore) -> None:
        self._cache, self._images = cache, images
        self._ready: dict[str, Ready] = {}

    def tree(
        self, ready: Ready, number: int, results: Sequence[tuple[str, Result]], epoch: int | None
    ) -> None:
        """An archive of the results' files, with no time later than ``epoch`` (seconds). Blocks.

        :param results: each with the directory in the archive for its files; ``""`` for the top.
        """
        mounts: list[tuple[str, Mount]] = []
        for directory, result in results:
            key, mount = self._cache.prepare(result)
            ready.undo.callback(self._cache.discard, key)
            mounts.append((directory, mount))
        role = ("export",) if epoch is None else ("export", str(epoch * 10**9))

        def one(mount: Mount, out: BinaryIO) -> None:
            Job().run(LayerMounts(mount), role, what="cannot write the output", stdout=out.fileno())

        def several(out: BinaryIO) -> None:
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as whole:
                for directory, mount in mounts:
                    with tempfile.TemporaryFile(dir=self._cache.root, prefix="scratch-") as file:
                        one(mount, cast(BinaryIO, file))
                        file.seek(0)
                        _within(directory, cast(BinaryIO, file), whole)

        single = len(mounts) == 1 and not mounts[0][0]
        ready.produce[number] = partial(one, mounts[0][1]) if single else several

    def image(self, ready: Ready, number: int, target: Descriptor, names: list[Reference]) -> None:
        """An image's archive. The image stays in the store until it is fetched. Blocks."""
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
        """Keep an output until it is fetched or expires. A build may have several."""
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
        """The function that writes an output. :raises NotFound: there is none. :raises Conflict: it was
        fetched already.
        """
        ready = self._ready.get(build)
        if ready is None:
            raise NotFound(f"No such build output: {build}")
        produce = ready.produce.pop(number, None)
        if produce is None:
            raise Conflict(f"output {number} of build {build} was fetched already, or does not exist")
        return produce

    async def done(self, build: str) -> None:
        """One output was fetched; after the last one everything is released."""
        ready = self._ready.get(build)
        if ready is not None and not ready.produce:
            del self._ready[build]
            # Whoever has read the end may be gone before this begins.
            await threads.disk.surely(ready.undo.close)

    async def close(self) -> None:
        for build in list(self._ready):
            await threads.disk.surely(self._ready.pop(build).undo.close)


def _within(directory: str, archive: BinaryIO, whole: tarfile.TarFile) -> None:
    """Add an archive's members below a directory."""
    top = tarfile.TarInfo(directory)
    top.type, top.mode = tarfile.DIRTYPE, 0o755
    whole.addfile(top)
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            member.name = f"{directory}/{member.name}"
            if member.islnk():
                member.linkname = f"{directory}/{member.linkname}"
            kept = {key: text for key, text in member.pax_headers.items() if key not in ("path", "linkpath")}
            member.pax_headers = kept
            whole.addfile(member, tar.extractfile(member) if member.isreg() else None)
