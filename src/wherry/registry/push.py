"""Push blobs and manifests to registries (distribution-spec, "Push").

Blobs that the registry has are not sent again. For each blob: ask whether it exists, then try to mount it
from another repository of the same registry, and only then upload it. Small blobs are sent in one request;
larger ones as a stream, which is continued after an interruption if the registry says how much it has
received.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from yarl import URL

from wherry import threads
from wherry.errors import Internal
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.registry.errors import REFUSED, RegistryError
from wherry.registry.repository import Repository
from wherry.registry.transport import origin_of, shown
from wherry.storage.content import ContentStore
from wherry.storage.verify import Verifier

Progress = Callable[[int], None]
"""Called on the loop with the bytes that were sent."""

IN_ONE_PIECE = 4 << 20
_PIECE = 1 << 20
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Sent:
    """``how``: the blob ``exists`` already, was ``mounted`` (from the repository ``source``), or was
    ``sent``."""

    how: str
    source: str = ""


class Pusher:
    """Sends blobs of the content store to one repository, opened for ``pull,push``."""

    def __init__(self, repository: Repository, content: ContentStore) -> None:
        self._repository, self._content = repository, content

    async def blob(
        self,
        blob: Descriptor,
        *,
        mount_from: Sequence[str] = (),
        progress: Progress = lambda current: None,
    ) -> Sent:
        """Make sure that the repository has a blob.

        :param mount_from: paths of repositories of the same registry that may have it.
        :raises RegistryError: the registry refuses. :raises NotFound: it must be sent, and is not in the
            content store.
        """
        if await self._repository.blob_size(blob.digest) is not None:
            return Sent("exists")
        for source in mount_from[:3]:
            if await self.mount(blob.digest, source):
                return Sent("mounted", source)
        await self._upload(blob, progress)
        return Sent("sent")

    async def mount(self, digest: Digest, source: str) -> bool:
        """Try to mount a blob from the repository ``source``. :returns: whether it worked."""
        try:
            location = await self._begin(digest, source)
        except RegistryError as e:
            if e.temporary:
                raise
            return False  # no right to read there, or mounting is not supported: send it instead
        if location is not None:
            await self._drop(location)
        return location is None

    async def _drop(self, location: URL) -> None:
        """Cancel an upload that is not needed."""
        with suppress(RegistryError):
            async with self._repository.request("DELETE", location, ok=(200, 202, 204)):
                return

    async def manifest(self, reference: str, descriptor: Descriptor, data: bytes) -> bool:
        """Put a manifest or an index under a tag or its digest.

        :returns: whether the registry has registered its subject (``OCI-Subject``).
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
        """The URL to send a blob to; None if it was mounted from ``source``."""
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
            return self._location(answer.url, answer.headers.get("Location", ""))

    def _location(self, asked: URL, text: str) -> URL:
        """The URL for the next request.

        It may be on another machine; the registry's credentials are not sent there. A registry behind a TLS
        proxy may call itself ``http``: on the same host TLS is kept.
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
        file = await threads.short(self._content.open, blob.digest)
        with file:
            fd = file.fileno()
            if blob.size <= IN_ONE_PIECE:
                data = await threads.short.to_end(os.pread, fd, blob.size + 1, 0)
                verifier = Verifier(blob.digest, blob.size)
                verifier.update(data)
                verifier.check()
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

        damage: list[Internal] = []

        def verified(verifier: Verifier, piece: bytes) -> None:
            try:
                verifier.update(piece)
                if not piece:
                    verifier.check()  # the file is shorter than the blob
            except Internal as e:
                damage.append(e)
                raise

        async def pieces() -> AsyncIterator[bytes]:
            verifier = Verifier(blob.digest, blob.size)
            at = 0
            while at < blob.size:
                # The part that was sent before is read again as well, because the digest covers the whole
                # blob.
                end = offset if at < offset else blob.size
                piece = await threads.short.to_end(os.pread, fd, min(_PIECE, end - at), at)
                await threads.short.to_end(verified, verifier, piece)
                if at < offset:
                    at += len(piece)
                    continue
                yield piece
                at += len(piece)
                progress(at)

        try:
            async with repository.request(
                "PATCH", location, ok=(200, 201, 202, 204), headers=headers, body=pieces
            ) as answer:
                return self._location(answer.url, answer.headers.get("Location", "") or str(location))
        except RegistryError:
            if damage:  # reading failed, although it looks like an error of the connection
                raise damage[0] from None
            raise

    async def _how_far(self, location: URL | None, blob: Descriptor) -> tuple[URL | None, int]:
        """Where to continue, according to the registry ("GET" of an upload); a new upload if
        it does not say."""
        if location is None or origin_of(location) != origin_of(self._repository.base):
            return None, 0
        try:
            async with self._repository.request("GET", location, ok=(204,)) as answer:
                first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
                there = self._location(answer.url, answer.headers.get("Location", "") or str(location))
        except RegistryError:
            return None, 0
        if first != "0" or not last.isdigit():
            return None, 0
        # "0-0" is the answer for an empty upload, and for one with one byte
        offset = int(last) + 1 if int(last) else 0
        return (there, offset) if 0 < offset <= blob.size else (None, 0)
