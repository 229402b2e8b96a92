"""Fetch blobs from registries into the content store: several in parallel, each only once.

A blob that is being fetched is an ingest of the content store, named by its digest. After an error, or if the
daemon was killed, the existing part is hashed again and the transfer is continued with a Range request. Bytes
are hashed while they are written. A blob with the wrong digest is discarded; if its transfer had been
continued, it is fetched again from the first byte, because the existing part may have been wrong. A second
request for a blob that is being fetched waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import ParamSpec, TypeVar

import aiohttp

from wherry import threads
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
"""Called on the loop with the number of bytes received."""
Verified = Callable[[int], None]
"""Called on the loop with a file descriptor of a blob that is complete but not yet durable; the callee closes
it."""

_PIECE = 1 << 20
_PROGRESS = 1 << 16
"""If an attempt has transferred this many bytes, the count of attempts starts again."""
_SLOWEST = 1 << 10
"""Bytes per second, averaged over the configured timeout; a slower transfer is given up."""


class _Job:
    """One blob that is being fetched, and the calls that wait for it."""

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
        """Make sure that a blob is in the store, protected by ``lease``.

        Cancelling stops the transfer unless another call waits for it; the received part is kept.

        :param sources: repositories to ask, in this order. :param limit: the maximum number of parallel
            transfers.
        :param verified: only called for a blob that this call transferred itself.
        :raises RegistryError: no source has it, or it has the wrong digest everywhere.
        :raises Unavailable: the disk is full.
        """
        while not await threads.short.to_end(self._content.keep, wanted.digest, lease.id):
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
                # The failure of another call says nothing about our sources, and its cancellation does not
                # concern us.
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
        writer = await threads.disk.to_end(self._content.ingest, f"blob {wanted.digest}")
        try:
            for source in sources[:-1]:
                try:
                    await self._from(source, job, writer)
                    break
                except RegistryError:
                    continue  # a mirror that does not have it, or has a damaged copy
            else:
                await self._from(sources[-1], job, writer)
            if verified is not None:
                verified(writer.reopen())
            await threads.disk.to_end(writer.commit, wanted.digest, wanted.size, lease=lease.id)
        finally:
            await threads.short.to_end(writer.close)

    async def _from(self, source: Repository, job: _Job, writer: Writer) -> None:
        """Fill the writer; returns when the blob is complete and verified."""
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
                # A registry that breaks off after every few bytes gets no more attempts than one that does
                # not answer.
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
                await threads.short.to_end(_write, writer, pending)  # the next attempt continues here
                raise
            if not piece:
                break
            pending.append(piece)
            held += len(piece)
            if writer.offset + held > size:
                writer.restart()
                raise source.error(REFUSED, f"blob {job.descriptor.digest} is longer than {size} bytes")
            if held >= _PIECE or writer.offset + held == size:
                await threads.short.to_end(_write, writer, pending)
                job.report(writer.offset)
                pending, held = [], 0
            if (now := monotonic()) - began > timeout:
                if writer.offset + held - mark < _SLOWEST * timeout:
                    await threads.short.to_end(_write, writer, pending)
                    raise source.error(UNREACHABLE, f"blob {job.descriptor.digest} comes too slowly")
                began, mark = now, writer.offset + held
        await threads.short.to_end(_write, writer, pending)


def _write(writer: Writer, pieces: list[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)


async def fetch_small(sources: Sequence[Repository], wanted: Descriptor, limit: int) -> bytes:
    """Fetch a small blob into memory and verify it. Raises as :meth:`Fetcher.fetch`."""
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
