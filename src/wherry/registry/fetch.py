"""Blobs from registries into the content store, several at once, each only once.

A blob on its way is an ingest of the content store, named by its digest. What is there of it is hashed again
and continued by Range: after an error, and after the daemon was killed. Bytes are hashed while they are
written; a blob that turns out wrong is thrown away, and fetched once more from its first byte if it was
continued, as the piece that was there may have been the wrong one. Who asks for a blob that is on its way
waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import ParamSpec, TypeVar

import aiohttp

from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.registry.errors import REFUSED, UNREACHABLE, RegistryError
from wherry.registry.repository import Repository
from wherry.registry.transport import failure, read_bounded
from wherry.storage.content import ContentStore, Writer
from wherry.storage.leases import Lease

P = ParamSpec("P")
T = TypeVar("T")
Progress = Callable[[int], None]
"""Called on the loop with the bytes that are there."""
Verified = Callable[[int], None]
"""Called on the loop with a descriptor, to close, of a blob that is whole but not yet durable."""

_PIECE = 1 << 20
_PROGRESS = 1 << 16
"""Bytes that a try must have brought for the next one to count as the first again."""
_SLOWEST = 1 << 10
"""Bytes a second, over the configured timeout: less is standing still."""


class _Job:
    """One blob on its way, and who waits for it."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.progress: list[Progress] = []

    def report(self, current: int) -> None:
        for listener in list(self.progress):
            listener(current)


class Fetcher:
    """Lives as long as the daemon; used on the loop only."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._jobs: dict[Digest, _Job] = {}

    async def fetch(
        self,
        sources: Sequence[Repository],
        wanted: Descriptor,
        lease: Lease,
        *,
        limit: asyncio.Semaphore,
        progress: Progress = lambda current: None,
        verified: Verified | None = None,
    ) -> None:
        """Have a blob in the store, held by ``lease``.

        Cancelling stops the transfer, unless somebody else waits for it; what came so far stays.

        :param sources: where to ask, in this order. :param limit: how many transfers there may be at once.
        :param verified: only called for a blob that this very call transferred.
        :raises RegistryError: no source has it, or what they have is not it.
        :raises Unavailable: the disk is full.
        """
        while not await in_thread(self._content.keep, wanted.digest, lease.id):
            job = self._jobs.get(wanted.digest)
            if job is None:
                job = self._jobs[wanted.digest] = _Job(wanted)
                job.task = asyncio.create_task(self._run(job, sources, lease, limit, verified))
                mine = True
            else:
                mine = False
            try:
                await self._wait(job, progress)
            except (RegistryError, asyncio.CancelledError):
                # Somebody else's failure says nothing about our registry, nor their leaving about us.
                current = asyncio.current_task()
                if mine or (current is not None and current.cancelling()):
                    raise

    async def _wait(self, job: _Job, progress: Progress) -> None:
        assert job.task is not None
        job.waiting += 1
        job.progress.append(progress)
        try:
            await asyncio.shield(job.task)
        except asyncio.CancelledError:
            if job.waiting == 1 and not job.task.done():
                job.task.cancel()
                await asyncio.wait([job.task])
            raise
        finally:
            job.progress.remove(progress)
            job.waiting -= 1

    async def _run(
        self,
        job: _Job,
        sources: Sequence[Repository],
        lease: Lease,
        limit: asyncio.Semaphore,
        verified: Verified | None,
    ) -> None:
        try:
            async with limit:
                await self._transfer(job, sources, lease, verified)
        finally:
            del self._jobs[job.descriptor.digest]

    async def _transfer(
        self, job: _Job, sources: Sequence[Repository], lease: Lease, verified: Verified | None
    ) -> None:
        wanted = job.descriptor
        writer = await in_thread(self._content.ingest, f"blob {wanted.digest}")
        try:
            for source in sources[:-1]:
                try:
                    await self._from(source, job, writer)
                    break
                except RegistryError:
                    continue  # a mirror that has it not, or not right
            else:
                await self._from(sources[-1], job, writer)
            if verified is not None:
                verified(writer.reopen())
            await in_thread(writer.commit, wanted.digest, wanted.size, lease=lease.id)
        finally:
            await in_thread(writer.close)

    async def _from(self, source: Repository, job: _Job, writer: Writer) -> None:
        """Fill the writer; returns when everything is there and right."""
        wanted = job.descriptor
        continued, attempt = writer.offset > 0, 0
        while True:
            before = writer.offset
            try:
                await self._receive(source, job, writer)
            except RegistryError as e:
                if e.status == 416 and continued:
                    continued = False
                    writer.restart()
                    continue
                # A registry that breaks off after every few bytes gets no more tries than one that is silent.
                attempt = 1 if writer.offset - before >= _PROGRESS else attempt + 1
                if not e.temporary or attempt >= source.config.attempts:
                    raise
                await source.wait(attempt, e)
                continue
            if writer.digest == wanted.digest:
                return
            found = writer.digest
            writer.restart()
            if not continued:
                raise source.error(REFUSED, f"blob {wanted.digest} came with the digest {found}")
            continued = False

    async def _receive(self, source: Repository, job: _Job, writer: Writer) -> None:
        wanted = job.descriptor
        if writer.offset > wanted.size:
            writer.restart()
        job.report(writer.offset)
        if writer.offset == wanted.size:
            return
        async with source.blob(wanted.digest, writer.offset) as (response, start):
            if start != writer.offset:
                writer.restart()
            length = response.content_length
            if length is not None and start + length != wanted.size:
                raise source.error(
                    REFUSED,
                    f"blob {wanted.digest} is to have {wanted.size} bytes, it sends {start + length}",
                )
            try:
                await self._copy(source, response, job, writer)
            except (aiohttp.ClientError, OSError, TimeoutError) as e:
                raise failure(source.host, e) from e
        if writer.offset < wanted.size:
            raise source.error(
                UNREACHABLE, f"blob {wanted.digest} ended after {writer.offset} of {wanted.size} bytes"
            )

    async def _copy(
        self, source: Repository, response: aiohttp.ClientResponse, job: _Job, writer: Writer
    ) -> None:
        size, timeout = job.descriptor.size, source.config.timeout
        pending: list[bytes] = []
        held = 0
        began, mark = monotonic(), writer.offset
        while True:
            try:
                piece = await response.content.readany()
            except (aiohttp.ClientError, OSError, TimeoutError):
                await in_thread(_write, writer, pending)  # what came is where the next try goes on
                raise
            if not piece:
                break
            pending.append(piece)
            held += len(piece)
            if writer.offset + held > size:
                writer.restart()
                raise source.error(REFUSED, f"blob {job.descriptor.digest} is longer than {size} bytes")
            if held >= _PIECE or writer.offset + held == size:
                await in_thread(_write, writer, pending)
                job.report(writer.offset)
                pending, held = [], 0
            if (now := monotonic()) - began > timeout:
                if writer.offset + held - mark < _SLOWEST * timeout:
                    await in_thread(_write, writer, pending)
                    raise source.error(UNREACHABLE, f"blob {job.descriptor.digest} comes too slowly")
                began, mark = now, writer.offset + held
        await in_thread(_write, writer, pending)


async def in_thread(work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """As :func:`asyncio.to_thread`; a cancelled caller goes on only when the thread has ended, so that what
    the thread works on is nobody else's until then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **keywords))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()
        raise


def _write(writer: Writer, pieces: list[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)


async def fetch_small(sources: Sequence[Repository], wanted: Descriptor, limit: int) -> bytes:
    """A small blob into memory, verified. Raises as :meth:`Fetcher.fetch`."""
    if not 0 <= wanted.size <= limit:
        raise sources[-1].error(REFUSED, f"blob {wanted.digest} has {wanted.size} bytes, more than {limit}")
    for source in sources[:-1]:
        try:
            return await _small(source, wanted)
        except (RegistryError, InvalidArgument):
            continue
    return await _small(sources[-1], wanted)


async def _small(source: Repository, wanted: Descriptor) -> bytes:
    async def once() -> bytes:
        async with source.blob(wanted.digest) as (response, _start):
            return await read_bounded(response, wanted.size, source.host, timeout=source.config.timeout)

    data: bytes = await source.retrying(once)
    if len(data) != wanted.size:
        raise source.error(REFUSED, f"blob {wanted.digest} has {len(data)} bytes, not {wanted.size}")
    if (found := digests.of(data)) != wanted.digest:
        raise source.error(REFUSED, f"blob {wanted.digest} came with the digest {found}")
    return data
