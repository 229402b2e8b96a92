"""Pull one image: choose what to fetch, fetch and unpack layers in parallel, then move the name.

Each layer is fetched and unpacked. The first layer to arrive is unpacked while the others are still being
fetched. If another pull is working on a layer already, this one waits for it. The name moves last, when
everything is there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any

from wherry import threads
from wherry.engine.images import referrers
from wherry.errors import InvalidArgument, NotFound
from wherry.images.graph import DEPTH_MAX
from wherry.images.layers import Coming, PackedLayer, PreparedLayer
from wherry.images.store import ImageStore, layers_of
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.documents import decode_config
from wherry.model.oci import Descriptor, Index, Manifest, Platform
from wherry.model.platforms import preferred_platforms, rank
from wherry.model.reference import Reference
from wherry.registry.errors import REFUSED, RegistryError
from wherry.registry.fetch import Fetcher, fetch_small
from wherry.registry.repository import Repository
from wherry.registry.resolve import Resolved, check_image, fetch_child, fetch_target
from wherry.storage.leases import Lease

Progress = Callable[[dict[str, Any]], None]

_ATTESTATIONS_MAX = 64
"""Attestations of one image; buildx makes one."""
_STEP = 0.1
"""Seconds between two reports about one layer."""
_ATTESTS = "vnd.docker.reference.digest"


@dataclass(frozen=True)
class Pulled:
    """``changed`` is False if everything was there already and the name did not move."""

    target: Digest
    changed: bool


def short(digest: Digest) -> str:
    return digests.hex_of(digest)[:12]


class Pulling:
    """One pull. ``sources`` are tried in order."""

    def __init__(
        self,
        images: ImageStore,
        fetcher: Fetcher,
        sources: Sequence[Repository],
        reference: Reference,
        platform: Platform | None,
        lease: Lease,
        progress: Progress,
        *,
        downloads: int,
    ) -> None:
        self._images, self._fetcher, self._sources = images, fetcher, sources
        self._reference, self._platform = reference, platform
        self._lease, self._progress = lease, progress
        self._limit = asyncio.Semaphore(downloads)
        self._referrers: list[tuple[Digest, str]] = []

    async def run(self, by: str = "") -> Pulled:
        """:raises RegistryError: see its codes. :raises NotFound: no image for the platform.
        :raises InvalidArgument: the received data cannot be unpacked."""
        reference = self._reference
        wanted = str(reference.digest or reference.tag)
        if (target := await self._unchanged(wanted)) is not None:
            self._say("Pulling from " + reference.path, wanted)
            return Pulled(target, changed=False)
        found = await self._first(lambda source: fetch_target(source, wanted))
        self._say("Pulling from " + reference.path, wanted)
        await self._store(found)
        chosen = await self._choose(found)
        assert isinstance(chosen.document, Manifest)
        check_image(self._sources[-1], chosen.document)
        fresh = await self._image(chosen.document)
        if isinstance(found.document, Index):
            await self._attestations(found.document, chosen.descriptor.digest)
        subjects = (found.descriptor.digest, chosen.descriptor.digest)
        self._referrers = await referrers.fetch(
            self._images, self._sources[-1], subjects, self._lease, self._quietly
        )
        moved = await threads.short(self._name, found.descriptor, by)
        return Pulled(found.descriptor.digest, changed=fresh or moved)

    def _say(self, status: str, identifier: str = "") -> None:
        self._progress({"status": status, "id": identifier} if identifier else {"status": status})

    async def _first(self, ask: Callable[[Repository], Coroutine[Any, Any, Resolved]]) -> Resolved:
        """The first successful answer of a source; if there is none, the error of the registry itself."""
        for source in self._sources[:-1]:
            try:
                return await ask(source)
            except RegistryError:
                continue
        return await ask(self._sources[-1])

    async def _unchanged(self, wanted: str) -> Digest | None:
        """The local target, if the registry confirms by HEAD that the name still points to it."""
        try:
            image = await threads.short(self._images.resolve, str(self._reference), self._platform)
        except NotFound:
            return None
        best = preferred_platforms(oci.host())
        if self._platform is None and rank(image.platform, best) != 0:
            return None
        if not await threads.short(self._images.is_whole, image):
            return None
        if self._reference.digest is not None:
            return image.id
        for source in self._sources:
            try:
                head = await source.head(wanted)
            except RegistryError:
                continue
            return image.id if head.digest == image.id else None
        return None

    async def _store(self, found: Resolved) -> None:
        await threads.short(
            self._images.content.put, found.data, found.descriptor.media_type, lease=self._lease.id
        )

    async def _choose(self, found: Resolved, depth: int = 0) -> Resolved:
        """The manifest for the platform; every document on the way to it is stored."""
        if isinstance(found.document, Manifest):
            return found
        entries = [
            entry
            for entry in found.document.manifests
            if entry.media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES and not _is_attestation(entry)
        ]
        entry = self._best(entries)
        if entry is None or depth >= DEPTH_MAX:
            platform = self._platform or oci.host()
            raise NotFound(
                f"no matching manifest for {platform} in the manifest list entries of "
                f"{self._reference.familiar()} (registry {self._sources[-1].host})"
            )
        child = await self._first(lambda source: fetch_child(source, entry))
        await self._store(child)
        return await self._choose(child, depth + 1)

    def _best(self, entries: Sequence[Descriptor]) -> Descriptor | None:
        if self._platform is not None:
            wanted = self._platform
            exact = [e for e in entries if e.platform is not None and e.platform.satisfies(wanted)]
            same = [e for e in exact if e.platform is not None and e.platform.normalised() == wanted]
            return next(iter(same or exact), None)
        best = preferred_platforms(oci.host())
        ranked = [(rank(e.platform or Platform(), best), e) for e in entries]
        fitting = [(place, e) for place, e in ranked if place < len(best) or e.platform is None]
        return min(fitting, key=lambda pair: pair[0], default=(0, None))[1]

    # the parts of the image

    async def _image(self, manifest: Manifest) -> bool:
        """Fetch and unpack everything in a manifest. Returns whether anything was missing before."""
        config = manifest.config
        fresh = not await threads.short(self._images.content.keep, config.digest, self._lease.id)
        if fresh:
            data = await fetch_small(self._sources, config, oci.CONFIG_SIZE_MAX)
            await threads.short(
                self._images.content.put,
                data,
                config.media_type,
                expected=config.digest,
                lease=self._lease.id,
            )
        else:
            data = await threads.short(self._images.content.read, config.digest, limit=oci.CONFIG_SIZE_MAX)
        try:
            decoded = decode_config(data)
            layers = layers_of(manifest.layers, decoded.rootfs.diff_ids)
        except InvalidArgument as e:
            raise self._sources[-1].error(REFUSED, e.message) from e
        if self._platform is not None and not decoded.platform.satisfies(self._platform):
            raise NotFound(
                f"image with reference {self._reference.familiar()} was found but does not provide the "
                f"specified platform ({self._platform})"
            )
        return await _Layers(self, manifest.layers, layers).run() or fresh

    async def _attestations(self, index: Index, chosen: Digest) -> None:
        """The attestations that the index has for the chosen manifest, kept as content."""
        told = [
            entry
            for entry in index.manifests
            if (entry.annotations or {}).get(_ATTESTS) == chosen and entry.media_type in oci.MANIFEST_TYPES
        ]
        for entry in list({entry.digest: entry for entry in told}.values())[:_ATTESTATIONS_MAX]:
            child = await self._first(lambda source, entry=entry: fetch_child(source, entry))  # type: ignore[misc]
            await self._store(child)
            assert isinstance(child.document, Manifest)
            for blob in (child.document.config, *child.document.layers):
                if not blob.urls:
                    await self._quietly(blob)

    async def _quietly(self, blob: Descriptor) -> None:
        await self.fetch(blob, lambda current: None, None)

    async def fetch(
        self, blob: Descriptor, progress: Callable[[int], None], verified: Callable[[int], None] | None
    ) -> None:
        await self._fetcher.fetch(
            self._sources, blob, self._lease, limit=self._limit, progress=progress, verified=verified
        )

    @property
    def images(self) -> ImageStore:
        return self._images

    def keep_snapshot(self, chain_id: Digest) -> None:
        self._lease.keep_snapshot(chain_id)

    def report(self, digest: Digest, status: str, detail: dict[str, Any] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": short(digest)})

    def _name(self, target: Descriptor, by: str) -> bool:
        plain = Descriptor(media_type=target.media_type, digest=target.digest, size=target.size)
        self._images.add(plain)
        self._images.rows.add_content(plain.digest, self._referrers)
        if self._reference.digest is not None:
            self._images.keep_as(self._reference, plain.digest, why="pull", by=by)
            return False
        return self._images.tag(self._reference, plain, why="pull", by=by) != plain.digest


class _Layers:
    """The layers of one image, transferred and unpacked side by side."""

    def __init__(self, pulling: Pulling, blobs: Sequence[Descriptor], layers: Sequence[PackedLayer]) -> None:
        self._pulling, self._blobs, self._layers = pulling, blobs, layers
        self._store = pulling.images.layers
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._arrived: set[Digest] = set()
        self._unpacked: set[Digest] = set()
        self._known: set[Digest] = set()
        """Layers that were here already; nothing more is reported about them."""
        self._wanted: dict[Digest, list[Coming]] = {}
        self._extracting: dict[Digest, float] = {}
        self._given_up = False
        self._let_go: set[Digest] = set()
        """Blobs that are missing on purpose, because their layer is unpacked."""

    async def run(self) -> bool:
        """Whether anything had to be fetched or unpacked."""
        content, pulling = self._pulling.images.content, self._pulling
        chain: list[Digest] = []
        missing: list[Descriptor] = []
        unpacked = 0
        for blob, layer in zip(self._blobs, self._layers, strict=True):
            chain.append(digests.chain_id(chain[-1] if chain else None, layer.diff_id))
            pulling.keep_snapshot(chain[-1])
            here, done = content.has(blob.digest), self._store.has(chain[-1])
            unpacked += done
            if not here and done and pulling.images.needs_no_blob(blob):
                self._let_go.add(blob.digest)
            elif not here:
                missing.append(blob)
            known = done and (here or blob.digest in self._let_go)
            if known:
                self._known.add(blob.digest)
            pulling.report(blob.digest, "Already exists" if known else "Pulling fs layer")
        if not missing and unpacked == len(chain):
            for blob in self._blobs:
                if blob.digest not in self._let_go:
                    await pulling.fetch(blob, lambda current: None, None)  # adds it to the lease
            return False
        try:
            await self._fetch_and_unpack()
        finally:
            self._give_up()
        return True

    async def _fetch_and_unpack(self) -> None:
        unique = {blob.digest: blob for blob in self._blobs if blob.digest not in self._let_go}
        transfers = [asyncio.create_task(self._fetch(blob)) for blob in unique.values()]
        ticker = asyncio.create_task(self._tick())
        work: list[asyncio.Task[Any]] = list(transfers)
        try:
            if not self._store.snapshotter.rebase:
                await asyncio.gather(*transfers)
            unpacking = asyncio.ensure_future(
                threads.waits(self._store.ensure, self._layers, self._coming, done=self._done)
            )
            try:
                await _all([*transfers, unpacking])
            finally:
                self._give_up()
                await _end(transfers)
                while not unpacking.done():
                    try:
                        await asyncio.wait([unpacking])
                    except asyncio.CancelledError:
                        continue
                unpacking.cancelled() or unpacking.exception()
        finally:
            ticker.cancel()
            await _end(work)

    async def _fetch(self, blob: Descriptor) -> None:
        pulling, last = self._pulling, 0.0
        received = False

        def progress(current: int) -> None:
            nonlocal last, received
            received = True
            if (now := monotonic()) - last >= _STEP or current == blob.size:
                last = now
                pulling.report(blob.digest, "Downloading", {"current": current, "total": blob.size})

        await pulling.fetch(blob, progress, lambda fd: self._verified(blob.digest, fd))
        if received:
            pulling.report(blob.digest, "Verifying Checksum")
        if blob.digest not in self._known:
            pulling.report(blob.digest, "Download complete")
        with self._lock:
            self._arrived.add(blob.digest)
            unpacked = blob.digest in self._unpacked
            waiting = self._wanted.pop(blob.digest, [])
        if unpacked:
            self._complete(blob.digest)
        for promise in waiting:
            self._start(blob.digest, promise, None)

    # unpacking; the methods below also run on other threads

    def _coming(self, position: int) -> Future[PreparedLayer] | None:
        """The promise of a layer that this pull must unpack."""
        digest = self._blobs[position].digest
        promise = Coming()
        with self._lock:
            if self._given_up:
                promise.cancel()
                return promise
            if digest not in self._arrived:
                self._wanted.setdefault(digest, []).append(promise)
                return promise
        self._start(digest, promise, None)
        return promise

    def _verified(self, digest: Digest, fd: int) -> None:
        """A blob is complete: it is unpacked from the open file while it is being synced to disk."""
        with self._lock:
            waiting = self._wanted.get(digest, [])
            promise = waiting.pop() if waiting else None
        if promise is None:
            os.close(fd)
        else:
            self._start(digest, promise, fd)

    def _start(self, digest: Digest, promise: Coming, fd: int | None) -> None:
        if not promise.set_running_or_notify_cancel():
            if fd is not None:
                os.close(fd)
            return
        with self._lock:
            self._extracting[digest] = monotonic()

        def finish(prepared: Future[PreparedLayer]) -> None:
            with self._lock:
                self._extracting.pop(digest, None)
            error = prepared.exception()
            if error is not None:
                promise.set_exception(error)
            else:
                promise.set_result(prepared.result())

        self._store.prepare(digest, fd).add_done_callback(finish)

    def _done(self, position: int) -> None:
        """A layer is unpacked. This can happen before its blob has arrived."""
        digest = self._blobs[position].digest
        with self._lock:
            self._unpacked.add(digest)
            arrived = digest in self._arrived
        if arrived:
            self._complete(digest)

    def _complete(self, digest: Digest) -> None:
        if digest not in self._known:
            self._pulling.report(digest, "Pull complete")

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            promises = [promise for waiting in self._wanted.values() for promise in waiting]
            self._wanted.clear()
        for promise in promises:
            promise.cancel()

    async def _tick(self) -> None:
        """Every second, report which layers are being unpacked, and for how long."""
        while True:
            await asyncio.sleep(1)
            with self._lock:
                running = list(self._extracting.items())
            for digest, since in running:
                seconds = max(1, round(monotonic() - since))
                self._pulling.report(digest, "Extracting", {"current": seconds, "units": "s"})


async def _all(work: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for everything, or for the first failure."""
    done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
    for one in done:
        one.result()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _is_attestation(entry: Descriptor) -> bool:
    return _ATTESTS in (entry.annotations or {})
