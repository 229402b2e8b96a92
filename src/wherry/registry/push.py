"""Blobs and manifests to registries (distribution-spec, "Push").

Nothing is sent that is there: a blob is asked for first, then mounted from a repository of the same registry
that may have it, and only then uploaded: small ones in one piece, larger ones as a stream that is continued
where it broke off, if the registry knows how far it got.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from yarl import URL

from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.registry.errors import BROKEN, REFUSED, RegistryError
from wherry.registry.fetch import in_thread
from wherry.registry.repository import Repository
from wherry.registry.transport import origin_of, shown
from wherry.storage.content import ContentStore

Progress = Callable[[int], None]
"""Called on the loop with the bytes that were sent."""

IN_ONE_PIECE = 4 << 20
_PIECE = 1 << 20
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Sent:
    """``how`` a blob came to be there: ``exists``, ``mounted`` (from the repository ``source``), ``sent``."""

    how: str
    source: str = ""


class Pusher:
    """Sends what the content store has to one repository, opened for ``pull,push``."""

    def __init__(self, repository: Repository, content: ContentStore) -> None:
        self._repository, self._content = repository, content

    async def blob(
        self,
        blob: Descriptor,
        *,
        mount_from: Sequence[str] = (),
        progress: Progress = lambda current: None,
    ) -> Sent:
        """Have a blob in the repository.

        :param mount_from: paths of repositories of the same registry that may have it.
        :raises RegistryError: the registry refuses. :raises NotFound: it is to be sent and is not here.
        """
        if await self._repository.blob_size(blob.digest) is not None:
            return Sent("exists")
        for source in mount_from[:3]:
            if await self.mount(blob.digest, source):
                return Sent("mounted", source)
        await self._upload(blob, progress)
        return Sent("sent")

    async def mount(self, digest: Digest, source: str) -> bool:
        """Whether the registry took a blob over from its repository ``source``."""
        try:
            location = await self._begin(digest, source)
        except RegistryError as e:
            if e.temporary:
                raise
            return False  # no right to read there, or no mounting at all: it is sent instead
        if location is not None:
            await self._drop(location)
        return location is None

    async def _drop(self, location: URL) -> None:
        """Give up an upload that was begun for nothing."""
        with suppress(RegistryError):
            async with self._repository.request("DELETE", location, ok=(200, 202, 204)):
                return

    async def manifest(self, reference: str, descriptor: Descriptor, data: bytes) -> bool:
        """Put a manifest or an index under a tag or its digest.

        :returns: whether the registry took notice of what it refers to (``OCI-Subject``).
        """
        noticed: bool = await self._repository.retrying(self._put_manifest, reference, descriptor, data)
        return noticed

    async def _put_manifest(self, reference: str, descriptor: Descriptor, data: bytes) -> bool:
        repository = self._repository
        url = repository.below(f"manifests/{reference}")
        headers = {"Content-Type": descriptor.media_type}
        async with repository.request("PUT", url, ok=(200, 201, 202), headers=headers, body=data) as answer:
            said = answer.headers.get("Docker-Content-Digest", descriptor.digest)
            noticed = "OCI-Subject" in answer.headers
        if said != descriptor.digest:
            raise repository.error(REFUSED, f"it took manifest {descriptor.digest} for {said}")
        return noticed

    # uploads

    async def _begin(self, digest: Digest, source: str = "") -> URL | None:
        """Where to send a blob; None when it was mounted from ``source``."""
        location: URL | None = await self._repository.retrying(self._post, digest, source)
        return location

    async def _post(self, digest: Digest, source: str) -> URL | None:
        repository = self._repository
        url, scope = repository.below("blobs/uploads/"), None
        if source:
            url = url.with_query({"mount": digest, "from": source})
            scope = f"{repository.scope} repository:{source}:pull"
        async with repository.request("POST", url, ok=(201, 202), scope=scope, body=b"") as answer:
            if answer.status == 201 and source:
                return None
            return self._location(url, answer.headers.get("Location", ""))

    def _location(self, asked: URL, text: str) -> URL:
        """Where the registry wants the next request.

        It may be another machine, which then gets no credentials of this one. A registry behind a proxy that
        does its TLS calls itself ``http``: that is the same host, and TLS is kept.
        """
        repository = self._repository
        try:
            there = asked.join(URL(text, encoded=True))
        except ValueError:
            there = URL()
        if not text or there.scheme not in ("http", "https") or not there.host:
            raise repository.error(REFUSED, f"it gives {text!r} as the place to upload to")
        if asked.scheme == "https" and there.scheme == "http":
            if there.host != asked.host:
                raise repository.error(REFUSED, f"it sends uploads from https to http ({shown(there)})")
            there = there.with_scheme("https").with_port(asked.explicit_port)
        return there

    async def _upload(self, blob: Descriptor, progress: Progress) -> None:
        file = await asyncio.to_thread(self._content.open, blob.digest)
        with file:
            fd = file.fileno()
            if blob.size <= IN_ONE_PIECE:
                data = await in_thread(os.pread, fd, blob.size, 0)
                await self._repository.retrying(self._in_one_piece, blob, data)
                progress(blob.size)
            else:
                await self._streamed(blob, fd, progress)

    async def _in_one_piece(self, blob: Descriptor, data: bytes) -> None:
        location = await self._post(blob.digest, "")
        assert location is not None
        await self._finish(location, blob.digest, data)

    async def _finish(self, location: URL, digest: Digest, data: bytes) -> None:
        url = URL(f"{location}{'&' if location.raw_query_string else '?'}digest={digest}", encoded=True)
        headers = {"Content-Type": _OCTETS, "Content-Length": str(len(data))}
        async with self._repository.request("PUT", url, ok=(200, 201, 204), headers=headers, body=data):
            return

    async def _streamed(self, blob: Descriptor, fd: int, progress: Progress) -> None:
        repository = self._repository
        location: URL | None = None
        offset, attempt = 0, 0
        while True:
            try:
                if location is None:
                    location, offset = await self._begin(blob.digest), 0
                    assert location is not None
                if offset < blob.size:
                    location = await self._patch(location, blob, fd, offset, progress)
                    offset = blob.size
                await self._finish(location, blob.digest, b"")
                return
            except RegistryError as e:
                attempt += 1
                gone = e.status in (404, 416) and location is not None
                if not (e.temporary or gone) or attempt >= repository.config.attempts:
                    raise
                await repository.wait(attempt, e)
                location, offset = await self._how_far(location, blob)

    async def _patch(self, location: URL, blob: Descriptor, fd: int, offset: int, progress: Progress) -> URL:
        repository = self._repository
        headers = {
            "Content-Type": _OCTETS,
            "Content-Length": str(blob.size - offset),
            "Content-Range": f"{offset}-{blob.size - 1}",
        }

        async def pieces() -> AsyncIterator[bytes]:
            at = offset
            while at < blob.size:
                piece = await in_thread(os.pread, fd, min(_PIECE, blob.size - at), at)
                if not piece:
                    raise repository.error(BROKEN, f"blob {blob.digest} is shorter than {blob.size} bytes")
                yield piece
                at += len(piece)
                progress(at)

        async with repository.request(
            "PATCH", location, ok=(200, 201, 202, 204), headers=headers, body=pieces
        ) as answer:
            return self._location(location, answer.headers.get("Location", "") or str(location))

    async def _how_far(self, location: URL | None, blob: Descriptor) -> tuple[URL | None, int]:
        """Where to go on, as the registry says ("GET" of an upload); anew where it does not say."""
        if location is None or origin_of(location) != origin_of(self._repository.base):
            return None, 0
        try:
            async with self._repository.request("GET", location, ok=(204,)) as answer:
                first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
                there = self._location(location, answer.headers.get("Location", "") or str(location))
        except RegistryError:
            return None, 0
        if first != "0" or not last.isdigit():
            return None, 0
        # "0-0" is said of an empty upload as well as of one that holds a byte
        offset = int(last) + 1 if int(last) else 0
        return (there, offset) if 0 < offset <= blob.size else (None, 0)
