"""Copy a volume's files in and out as archives: export all, import as a new volume, copy parts.

The same confined child that copies containers' files does the work, with the volume as its root. During an
export the child reads while a thread here compresses, so it uses two processors.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.volumes.versions import VolumeVersionService
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.linux.containerroot import LayerMounts
from wherry.model.mount import Mount
from wherry.storage.confined.containerfiles import Job, PathStat, split_path
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume

T = TypeVar("T")
_PIPE = 1 << 20
_READ = 128 << 10
COMPRESSIONS = ("none", "gzip", "zstd")


class VolumeFileService:
    def __init__(self, *, volumes: VolumeStore, versions: VolumeVersionService, events: EventBus) -> None:
        self._volumes, self._versions, self._events = volumes, versions, events

    def check_export(self, name: str, snapshot: str, compression: str) -> None:
        """Called before any part of the response is sent.

        :raises NotFound: no such volume or snapshot. :raises InvalidArgument: an unknown compression.
        """
        volume = self._volumes.get(name)
        if compression not in COMPRESSIONS:
            raise InvalidArgument(f"unknown compression {compression!r}: known are {', '.join(COMPRESSIONS)}")
        if snapshot:
            self._versions.snapshot_of(volume, snapshot)

    async def export(
        self, name: str, target: BinaryIO, job: Job, *, compression: str = "none", snapshot: str = ""
    ) -> None:
        """Write everything in a volume, or in one of its snapshots, to ``target`` as a tar archive.

        :raises NotFound, InvalidArgument: as :meth:`check_export`.
        """
        self.check_export(name, snapshot, compression)
        volume = self._volumes.get(name)

        def work() -> None:
            with self._versions.place(volume, snapshot) as path, _Compressor(target, compression) as out:
                job.run(_root(path), ("read", "/", "/."), what=f"cannot export {name}", stdout=out.fileno())

        await threads.waits(work)
        self._events.publish("volume", "export", volume.name, {"driver": volume.driver})

    async def import_(
        self, name: str, source: BinaryIO, job: Job, *, labels: Mapping[str, str], merge: bool
    ) -> Volume:
        """Make a volume from an archive, compressed or not. An incomplete archive makes no volume.

        :param merge: if the volume exists, extract into it, over its files.
        :raises Conflict: the volume exists, and ``merge`` is not set. :raises InvalidArgument: not an
        archive.
        """

        def extract(path: Path) -> None:
            what = f"cannot import {name}"
            job.run(_root(path, writable=True), ("write", "/", "0", "1"), what=what, stdin=source.fileno())

        def work() -> tuple[Volume, bool]:
            try:
                there = self._volumes.get(name)
            except NotFound:
                return self._volumes.create_filled(name, labels=labels, fill=extract), True
            if not merge:
                raise Conflict(f"cannot import {name}: there is such a volume already")
            with self._versions.place(there, "") as path:
                extract(path)
            return there, False

        volume, is_new = await threads.waits(work)
        if is_new:
            self._events.publish("volume", "create", volume.name, {"driver": volume.driver})
        self._events.publish("volume", "import", volume.name, {"driver": volume.driver})
        return volume

    # ---- parts, as with containers ---------------------------------------------------------------------

    async def stat(self, name: str, path: str, snapshot: str = "") -> PathStat:
        """:raises NotFound: no such volume, snapshot or file."""
        found: list[PathStat] = []

        def work(view: LayerMounts) -> None:
            Job().run(view, ("stat", *split_path(path)), what=_what(path), on_stat=found.append)

        await self._on(name, path, work, snapshot)
        return found[0]

    async def read(
        self,
        name: str,
        path: str,
        target: BinaryIO,
        job: Job,
        on_stat: Callable[[PathStat], None],
        snapshot: str = "",
    ) -> None:
        """Write an archive of ``path`` to ``target``; ``on_stat`` is called before that, on the loop."""
        loop = asyncio.get_running_loop()

        def say(stat: PathStat) -> None:
            loop.call_soon_threadsafe(on_stat, stat)

        def work(view: LayerMounts) -> None:
            role = ("read", *split_path(path))
            job.run(view, role, what=_what(path), stdout=target.fileno(), on_stat=say)

        await self._on(name, path, work, snapshot)

    async def write(self, name: str, path: str, source: BinaryIO, job: Job, *, keep_kinds: bool) -> None:
        """Extract an archive into the directory ``path``."""

        def work(view: LayerMounts) -> None:
            role = ("write", split_path(path)[0], "1" if keep_kinds else "0")
            job.run(view, role, what=f"cannot extract to {path}", stdin=source.fileno())

        await self._on(name, path, work, writable=True)

    async def _on(
        self,
        name: str,
        path: str,
        work: Callable[[LayerMounts], None],
        snapshot: str = "",
        *,
        writable: bool = False,
    ) -> None:
        volume = self._volumes.get(name)

        def placed() -> None:
            with self._versions.place(volume, snapshot) as root:
                try:
                    work(_root(root, writable=writable))
                except NotFound as e:
                    raise NotFound(f"Could not find the file {path} in volume {name}") from e

        await threads.waits(placed)


def _root(path: Path, *, writable: bool = False) -> LayerMounts:
    return LayerMounts(Mount("bind", str(path), ("bind",)), [], writable=writable, readonly=False)


def _what(path: str) -> str:
    return f"cannot copy {path}"


class _Stream(Protocol):
    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Compressor:
    """A descriptor to write to; the bytes arrive compressed in ``target``.

    It compresses on its own thread; leaving the context waits until all is written.
    """

    def __init__(self, target: BinaryIO, compression: str) -> None:
        self._target, self._stream = target, _stream(compression)
        self._write_end = -1
        self._done: Any = None

    def __enter__(self) -> _Compressor:
        if self._stream is not None:
            read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
            with suppress(OSError):  # the fewer changes of the process, the better
                fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, _PIPE)
            self._done = threads.pump.submit(self._pump, read_end, self._stream)
        return self

    def fileno(self) -> int:
        return self._target.fileno() if self._stream is None else self._write_end

    def _pump(self, read_end: int, stream: _Stream) -> None:
        # One buffer for all pieces, and small ones: memory for a megabyte is new from the kernel each time.
        buffer = memoryview(bytearray(_READ))
        with os.fdopen(read_end, "rb", buffering=0) as source:
            while size := source.readinto(buffer):
                if data := stream.compress(buffer[:size]):
                    self._target.write(data)
            self._target.write(stream.flush())
            self._target.flush()

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        if self._done is None:
            return
        os.close(self._write_end)
        if kind is None:
            self._done.result()
        else:
            with suppress(OSError):  # The reader is gone: that is why the rest failed too.
                self._done.result()


def _stream(compression: str) -> _Stream | None:
    """:raises InvalidArgument: no such compression."""
    if compression == "gzip":
        from isal import isal_zlib

        deflate: _Stream = isal_zlib.compressobj(level=2, wbits=31)
        return deflate
    if compression == "zstd":
        import zstandard

        zstd: _Stream = zstandard.ZstdCompressor(level=3, threads=-1).compressobj()
        return zstd
    return None
