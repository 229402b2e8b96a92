"""Objects as files.

    <root>/objects/<first two digits of the key>/<key>      mode 0600

An open object is written in its final file; finishing makes it durable without a rename. If a file is removed
while it is read, the reader can finish, because the kernel keeps an open file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from wherry import threads
from wherry.hub.store.objects import CHUNK, Full, ObjectLost, StoredObject

RESERVE = 256 << 20
"""Bytes of disk space that uploads leave free, so that the database can still write."""
_AHEAD = 8 << 20
"""Bytes after which an object's writing to disk begins, so that little is left when it must be durable."""
_writers = threads.Pool("hub-write", max(4, 2 * (os.cpu_count() or 1)))
_readers = threads.Pool("hub-read", 16)


class FileAppending:
    """Writes on a thread, one job at a time, so that the pieces stay in order."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._written = self._handed_over = offset

    async def write(self, pieces: Sequence[bytes]) -> None:
        await _writers.to_end(self._write, pieces)

    def _write(self, pieces: Sequence[bytes]) -> None:
        try:
            self._written += write_all(self._descriptor, pieces)
        except OSError as e:
            raise Full(f"cannot write: {os.strerror(e.errno or 0)}") from e
        if (size := self._written - self._handed_over) >= _AHEAD:
            # Linux starts to write dirty pages of this range and does not wait for them; they stay in memory
            os.posix_fadvise(self._descriptor, self._handed_over, size, os.POSIX_FADV_DONTNEED)
            self._handed_over = self._written

    async def close(self) -> str:
        def settle() -> str:
            try:
                os.fdatasync(self._descriptor)
            except OSError as e:
                raise Full(f"cannot write: {os.strerror(e.errno or 0)}") from e
            finally:
                self._close()
            return ""

        return await _writers.to_end(settle)

    async def abandon(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def write_all(descriptor: int, pieces: Sequence[bytes]) -> int:
    """Write all pieces in order, again after partial writes, and return how many bytes they are."""
    left = [memoryview(piece) for piece in pieces if piece]
    size = sum(map(len, left))
    while left:
        done = os.writev(descriptor, left[:512])
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if done:
            left[0] = left[0][done:]
    return size


class Files:
    """Objects as files; see the module's docstring."""

    min_chunk = 0

    def __init__(self, root: Path, *, reserve: int = RESERVE) -> None:
        self._root, self._reserve = root / "objects", reserve
        for number in range(256):
            (self._root / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)

    def describe(self) -> str:
        return f"files below {self._root}"

    def path(self, key: str) -> Path:
        return self._root / key[:2] / key

    async def append(self, key: str, state: str, offset: int) -> FileAppending:
        def opened() -> int:
            try:
                descriptor = os.open(self.path(key), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                raise Full(f"cannot write: {os.strerror(e.errno or 0)}") from e
            try:
                if os.fstat(descriptor).st_size < offset:
                    raise ObjectLost(f"the upload has less than the recorded {offset} bytes")
                os.ftruncate(descriptor, offset)  # later bytes were not recorded
                os.lseek(descriptor, offset, os.SEEK_SET)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        return FileAppending(await _writers.to_end(opened), offset)

    async def finish(self, key: str, state: str, size: int) -> None:
        def settle() -> None:
            try:
                found = self.path(key).stat().st_size if size else None
            except FileNotFoundError as e:
                raise ObjectLost(f"no object {key}") from e
            if not size:  # no byte was written
                self.path(key).touch(mode=0o600)
            elif found != size:
                raise ObjectLost(f"object {key} has {found} bytes, not {size}")
            sync_directory(self.path(key).parent)

        await _writers.to_end(settle)

    async def discard(self, key: str, state: str) -> None:
        await self.delete(key)

    async def delete(self, *keys: str) -> None:
        def delete() -> None:
            for key in keys:
                self.path(key).unlink(missing_ok=True)

        await _writers.to_end(delete)

    async def size(self, key: str) -> int | None:
        try:
            return os.stat(self.path(key)).st_size
        except FileNotFoundError:
            return None

    async def read(self, key: str, first: int, last: int) -> AsyncIterator[bytes]:
        descriptor = await _readers.to_end(self._open, key)
        ahead: asyncio.Future[bytes] | None = None
        try:
            while first <= last:
                piece = await (ahead or self._piece(descriptor, first, last))
                ahead = None
                if not piece:
                    raise ObjectLost(f"object {key} ends at {first}")
                first += len(piece)
                if first <= last:  # read the next piece while this one is sent
                    ahead = asyncio.ensure_future(self._piece(descriptor, first, last))
                yield piece
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])  # until then a thread uses the descriptor
            os.close(descriptor)

    async def _piece(self, descriptor: int, first: int, last: int) -> bytes:
        return await _readers.to_end(os.pread, descriptor, min(CHUNK, last - first + 1), first)

    def _open(self, key: str) -> int:
        try:
            return os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as e:
            raise ObjectLost(f"no object {key}") from e

    async def address(self, key: str, seconds: int) -> str | None:
        return None

    async def all(self) -> AsyncIterator[StoredObject]:
        for number in range(256):
            for one in await threads.disk(lambda n=number: list(self._shard(n))):  # type: ignore[misc]
                yield one
            await asyncio.sleep(0)

    def _shard(self, number: int) -> Iterator[StoredObject]:
        with os.scandir(self._root / f"{number:02x}") as entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield StoredObject(entry.name, facts.st_size, facts.st_mtime)

    async def check_room(self, size: int) -> None:
        if shutil.disk_usage(self._root).free < self._reserve + size:
            raise Full(f"not enough disk space: less than {self._reserve} bytes would be left free")

    async def close(self) -> None:
        return None


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
