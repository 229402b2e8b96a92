"""Base images of builds: local ones, or pulled if they are missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from wherry import threads
from wherry.engine.builds.clients import BuildClient, Source
from wherry.engine.builds.layouts import Layouts
from wherry.engine.builds.reports import Report
from wherry.engine.images.pulls import Progress, PullService
from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Platform
from wherry.solver.graph import BaseImage
from wherry.storage.leases import Lease

LAYOUT = "oci-layout://"
Held = Callable[[Platform], Awaitable[Image]]


class Bases:
    """See :class:`wherry.dockerfile.plan.Resolver`; for one build."""

    def __init__(
        self,
        *,
        images: ImageStore,
        pulls: PullService,
        lease: Lease,
        client: BuildClient,
        always_pull: bool,
        report: Report,
        held: Mapping[str, Held],
    ) -> None:
        """:param held: results of other builds, by the names that stand for them (see :mod:`held`); messages
        show only the part of the name before an ``@``.
        """
        self._images, self._pulls, self._lease = images, pulls, lease
        self._layouts = Layouts(images)
        self._client, self._always, self._report, self._held = client, always_pull, report, held
        self._pulled: set[tuple[str, Platform]] = set()
        self.found: dict[Digest, Image] = {}
        """By the manifest's digest."""
        self.variables: dict[str, frozenset[str]] = {}
        """The names of the variables that each image sets, by the image's name as it was asked for."""

    async def image(self, name: str, platform: Platform) -> BaseImage:
        held = self._held.get(name)
        if held is not None:
            image = await held(platform)
            name = name.partition("@")[0]
        elif name.startswith(LAYOUT):
            image = await self._layout(name.removeprefix(LAYOUT), platform)
            for part in _parts(image):
                self._lease.keep_content(part)
        else:
            await self._client.check(
                Source(f"docker-image://{_full(name)}", platform), partial(self._more, name, platform)
            )
            image = await self._image(name, platform)
        for chain_id in image.chain_ids:
            self._lease.keep_snapshot(chain_id)
        snapshot = await threads.waits(self._images.ensure_unpacked, image)
        digest = image.manifest_descriptor.digest
        self.found[digest] = image
        self.variables[name] = names_of_variables(image)
        return BaseImage(name, digest, snapshot, image.config)

    async def _image(self, name: str, platform: Platform) -> Image:
        image = None
        if not self._always or digests.is_digest(name) or (name, platform) in self._pulled:
            image = await threads.short(self._here, name, platform)
        if image is None:
            with self._report.task(f"load metadata for {_full(name)}") as tell:
                await self._pull(name, platform, tell)
            self._pulled.add((name, platform))
            image = await threads.short(self._here, name, platform)
        if image is None:
            raise NotFound(f"No such image: {name}")
        return image

    async def _layout(self, name: str, platform: Platform) -> Image:
        """From a store of the client (``STORE[:TAG]@DIGEST``)."""
        store, _, digest = name.rpartition("@")
        if not digests.is_digest(digest) or not store:
            raise InvalidArgument(f"invalid oci-layout {name[:200]!r}: expected NAME@DIGEST")
        source = Source(f"{LAYOUT}{name}", platform, digest)

        async def more() -> Source:
            return source

        await self._client.check(source, more)
        blobs = self._client.blobs(f"oci:{store.partition(':')[0]}")
        with self._report.task(f"load metadata for {LAYOUT}{name}"):
            return await self._layouts.image(blobs, Digest(digest), platform, self._lease)

    async def _more(self, name: str, platform: Platform) -> Source:
        image = await self._image(name, platform)
        read = partial(self._images.content.read, image.manifest.config.digest, limit=oci.CONFIG_SIZE_MAX)
        config = await threads.short(read)
        return Source(f"docker-image://{_full(name)}", platform, image.manifest_descriptor.digest, config)

    def _here(self, name: str, platform: Platform) -> Image | None:
        image = find_here(self._images, name, platform)
        if image is None:
            return None
        for part in _parts(image):
            self._lease.keep_content(part)
        return image

    async def _pull(self, name: str, platform: Platform, progress: Progress) -> None:
        try:
            wanted = reference.parse(name)
        except InvalidArgument as e:
            raise InvalidArgument(f"failed to parse stage name {name!r}: {e.message}") from e

        if wanted.digest is None:
            wanted = wanted.with_default_tag()
        await self._pulls.pull(
            wanted,
            platform=platform,
            credentials=await self._client.credentials(wanted.domain),
            progress=progress,
        )


def find_here(images: ImageStore, name: str, platform: Platform | None = None) -> Image | None:
    """An image by its name, or by its whole digest.
    ``FROM b2`` is a name, even if an image id begins with that."""
    try:
        by_id = digests.is_digest(name) or reference.split_version(name)[1] is not None
        return images.resolve(name if by_id else str(reference.parse(name).with_default_tag()), platform)
    except NotFound:
        return None
    except InvalidArgument as e:
        raise InvalidArgument(f"failed to parse stage name {name!r}: {e.message}") from e


def names_of_variables(image: Image) -> frozenset[str]:
    return frozenset(entry.partition("=")[0] for entry in image.config.config.env or ())


def _parts(image: Image) -> list[Digest]:
    """Blobs that must be kept as long as the build may need them for its image."""
    parts = (image.target, image.manifest_descriptor, image.manifest.config, *image.manifest.layers)
    return [part.digest for part in parts]


def _full(name: str) -> str:
    """The name with its omitted parts filled in, if it is a valid name."""
    try:
        return str(reference.parse(name).with_default_tag())
    except InvalidArgument:
        return name
