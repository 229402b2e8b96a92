"""The use cases of images: the image store's operations, with events and with the containers' uses."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.images.bootstraps import Bootstraps
from wherry.engine.images.refetch import Refetcher
from wherry.engine.images.told import ImageEvents
from wherry.engine.images.users import images_of
from wherry.errors import InvalidArgument
from wherry.images import archive, archive_save, assemble, bootstrap
from wherry.images import delete as deletion
from wherry.images import versions as image_versions
from wherry.images.attestations import statements
from wherry.images.compare import compare
from wherry.images.store import ImageStore
from wherry.images.versions import Keep, protected
from wherry.linux import trees
from wherry.model import globs, oci, reference
from wherry.model.comparison import Comparison
from wherry.model.container import Container
from wherry.model.digest import Digest
from wherry.model.images import (
    Deleted,
    HistoryEntry,
    Image,
    ImageSummary,
    ImageUser,
    ManifestSummary,
    NameVersion,
    Statement,
    Untagged,
)
from wherry.model.oci import ImageRunConfig, Platform
from wherry.model.patterns import Pattern
from wherry.registry.download import KnownDownload, download, shown
from wherry.state.containers import Containers
from wherry.storage.confined.unpack import Unpacker

P = ParamSpec("P")
T = TypeVar("T")
_IMPORT_MAX = 64 << 30

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ImageDetails:
    image: Image
    size: int
    manifests: Sequence[ManifestSummary]
    pulled: Sequence[str] = ()
    """The repositories that it was pulled from."""


class ImageService:
    def __init__(
        self,
        *,
        images: ImageStore,
        unpacker: Unpacker,
        containers: Containers,
        events: EventBus,
        keep: Keep,
        refetcher: Refetcher,
        scratch: Path,
    ) -> None:
        """:param scratch: where base images are put together;
        leftovers of a killed daemon are deleted there."""
        scratch.mkdir(mode=0o700, exist_ok=True)
        for left in scratch.iterdir():
            trees.remove(left)
        self._scratch = scratch
        self._refetcher = refetcher
        self._keep = keep
        self._images = images
        self._unpacker = unpacker
        self._containers = containers
        self._events = events
        self._told = ImageEvents(events, images)
        self._bootstraps = Bootstraps()

    # ---- looking ---------------------------------------------------------------------------------------

    async def select(
        self,
        filters: Mapping[str, Sequence[str]],
        *,
        manifests: bool = False,
        shared_size: bool = False,
        until: int | None = None,
    ) -> list[tuple[ImageSummary, int]]:
        """Images and how many containers use each, newest first.

        :param until: only images made before this time, in nanoseconds since the epoch.
        """
        found = await threads.short(self._images.list, manifests=manifests, shared_size=shared_size)
        counts: dict[str, int] = {}
        for row in self._containers.all():
            counts[row.record.image_id] = counts.get(row.record.image_id, 0) + 1
        before = [self._created(name) for name in filters.get("before", ())]
        since = [self._created(name) for name in filters.get("since", ())]
        named = [globs.path_pattern(text, double_star=False) for text in filters.get("reference", ())]
        kept = [
            _only_names(image, named)
            for image in found
            if _matches(image, filters)
            and all(image.created_ns < limit for limit in before)
            and all(image.created_ns > limit for limit in since)
            and (until is None or image.created_ns < until)
        ]
        return [(image, counts.get(image.id, 0)) for image in kept if image is not None]

    def _created(self, name: str) -> int:
        return self._images.resolve(name).created_ns or 0

    async def inspect(self, name: str, platform: Platform | None = None) -> ImageDetails:
        def work() -> ImageDetails:
            image = self._images.resolve(name, platform)
            manifests = self._images.manifests(image.id)
            return ImageDetails(image, self._images.size(image.id), manifests, self._pulled(image.id))

        return await threads.short(work)

    async def pulled(self, images: Sequence[Digest]) -> dict[Digest, Sequence[str]]:
        """For each image the repositories that it was pulled from, the last one first."""
        return await threads.short(lambda: {one: self._pulled(one) for one in images})

    def _pulled(self, image: Digest) -> Sequence[str]:
        names = self._images.rows.pulled_with(image)
        return list(dict.fromkeys(reference.parse(name).name for name in names))

    async def history(self, name: str, platform: Platform | None = None) -> Sequence[HistoryEntry]:
        return await threads.short(lambda: self._images.history(self._images.resolve(name, platform)))

    async def compare(self, before: str, after: str, platform: Platform | None = None) -> Comparison:
        """The differences between two images. :raises NotFound: there is no such image."""

        def work() -> Comparison:
            return compare(
                self._images, self._images.resolve(before, platform), self._images.resolve(after, platform)
            )

        return await threads.child(work)

    async def disk_usage(self, targets: Collection[Digest] | None = None) -> int:
        """Bytes used by all images (or by ``targets``); each blob and snapshot is counted once."""
        return (await threads.disk(deletion.disk_usage, self._images, targets)).total

    # ---- changing --------------------------------------------------------------------------------------

    async def tag(self, name: str, repository: str, tag: str) -> None:
        """:raises InvalidArgument: not a name. :raises NotFound: no such image."""
        ref = reference.parse(repository)
        ref = ref.with_tag(tag) if tag else ref.with_default_tag()
        if ref.familiar_name == "sha256":
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        target = self._images.find(name)
        await threads.short(self._images.tag, ref, target, why="tag")
        self._told.publish("tag", target.digest, ref.familiar())

    async def delete(
        self, name: str, *, force: bool, platforms: Sequence[Platform] = ()
    ) -> list[Untagged | Deleted]:
        """:param platforms: delete only these platforms of the image; the others and the names stay.
        :raises Conflict: it is in use. :raises NotFound: no such image, or it lacks one of the platforms."""

        def work() -> list[Untagged | Deleted]:
            if platforms:
                return deletion.delete_platforms(
                    self._images, name, platforms, force=force, users=self._users
                )
            return deletion.delete(self._images, name, force=force, users=self._users)

        removed = await threads.disk(work)
        self._publish_removed(removed)
        return removed

    def _publish_removed(self, removed: Iterable[Untagged | Deleted]) -> None:
        for item in removed:
            if isinstance(item, Untagged):
                attributes = {**item.labels, "name": item.reference}
                self._events.publish("image", "untag", item.image, attributes)
            else:
                self._events.publish("image", "delete", item.id, {**item.labels, "name": item.id})

    def _users(self, image_id: Digest) -> list[ImageUser]:
        return [
            ImageUser(
                row.id,
                row.state.status in ("running", "paused", "restarting"),
                platform,
                _asked_for(row.record, image_id),
            )
            for row in self._containers.all()
            if (platform := images_of(row.record).get(image_id)) is not None
        ]

    async def prune(
        self,
        *,
        dangling: bool,
        until: int | None,
        labels: Callable[[Mapping[str, str]], bool],
        versions: bool = False,
    ) -> tuple[list[Untagged | Deleted], int]:
        """:param until: seconds since the epoch. :param labels: filters. :param versions: also remove earlier
        versions of names, which are otherwise kept for a rollback."""
        spared = set() if versions else await threads.short(protected, self._images, self._keep)
        removed, freed = await threads.disk(
            deletion.prune,
            self._images,
            users=self._users,
            dangling=dangling,
            keep=lambda image: not labels(image.labels) or (image.dangling and image.id in spared),
            until=until,
        )
        self._publish_removed(removed)
        return removed, freed

    # ---- versions --------------------------------------------------------------------------------------

    async def versions(self, name: str) -> list[NameVersion]:
        """The targets a name has had, newest first. :raises NotFound: the name was never used."""
        return await threads.short(image_versions.of_name, self._images, reference.parse(name))

    async def rollback(self, name: str, wanted: str) -> tuple[NameVersion, NameVersion]:
        """Point a name at an earlier version. Returns that version and the one it had."""
        ref = reference.parse(name).with_default_tag()
        version, before = await threads.short(image_versions.rollback, self._images, ref, wanted)
        more = {"from": before.target, "why": "rollback"}
        self._told.publish("tag", version.target, ref.familiar(), **more)
        return version, before

    # ---- archives --------------------------------------------------------------------------------------

    async def load(self, source: BinaryIO, *, platforms: Sequence[Platform], progress: Progress) -> list[str]:
        """Load an archive; returns the lines Docker prints about each image."""
        loaded = await threads.waits(
            archive.load,
            self._images,
            self._unpacker,
            source,
            platforms=platforms,
            progress=progress,
        )
        lines = []
        for item in loaded:
            self._told.publish("load", item.id, item.id)
            lines += [f"Loaded image: {name.familiar()}" for name in item.names]
            if not item.names:
                lines.append(f"Loaded image ID: {item.id}")
        return lines

    async def save(self, names: Sequence[str], target: BinaryIO, *, platforms: Sequence[Platform]) -> None:
        chosen = await threads.short(archive_save.choose, self._images, names)
        for item in chosen:
            shown = item.name.familiar() if item.name is not None else item.target.digest
            self._told.publish("save", item.target.digest, shown)
        await threads.waits(archive_save.save, self._images, list(names), target, platforms=platforms)

    async def check_names(self, names: Sequence[str], platforms: Sequence[Platform] = ()) -> None:
        """Before the response begins: make sure that all content for the archive is here.

        :raises NotFound: an image does not exist or lacks one of the platforms, or a discarded blob of
        one of its layers cannot be restored.
        """
        chosen = await threads.short(archive_save.choose, self._images, names, platforms)
        for target in {item.target.digest: item.target for item in chosen}.values():
            with self._images.leases.hold("save") as lease:
                await self._refetcher.layers(target, (), lease)

    @asynccontextmanager
    async def fetched(self, url: str, progress: Progress) -> AsyncIterator[BinaryIO]:
        """Fetch an archive from a URL, for :meth:`import_rootfs`.

        :raises InvalidArgument: it is not there. :raises Unavailable: the server does not answer.
        """
        url = url if "://" in url else f"http://{url}"
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument(f"cannot import {url[:200]!r}: only http and https are supported")
        progress({"status": f"Downloading from {shown(url)}"})
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            await download(url, file.write, known=KnownDownload(), limit=_IMPORT_MAX)
            file.seek(0)
            yield file

    async def attestations(
        self, name: str, platform: Platform | None, kinds: Collection[str], *, bodies: bool
    ) -> list[Statement]:
        """The attestations of an image. Raises what :func:`wherry.images.attestations.statements` raises."""
        host = oci.host()
        wanted = platform or Platform(os=host.os, architecture=host.architecture)
        return await threads.disk(statements, self._images, name, wanted, kinds, bodies=bodies)

    async def import_rootfs(
        self,
        source: BinaryIO,
        *,
        name: str,
        message: str,
        config: ImageRunConfig,
        platform: Platform | None,
    ) -> Image:
        ref = reference.parse(name).with_default_tag() if name else None
        image = await threads.waits(
            assemble.import_rootfs,
            self._images,
            self._unpacker,
            source,
            ref,
            message=message,
            changes=config,
            platform=platform,
        )
        shown = ref.familiar() if ref is not None else image.id
        self._told.publish("import", image.id, shown)
        return image

    async def bootstrap(
        self, name: str, *, progress: Progress, mirror: str, variant: str, force: bool
    ) -> Image:
        """Build a base image.
        If cancelled, the build stops unless another caller waits for the same image."""

        async def work(say: Progress) -> Image:
            image = await threads.waits(
                bootstrap.bootstrap,
                self._images,
                self._unpacker,
                name,
                progress=say,
                mirror=mirror or None,
                variant=variant or None,
                force=force,
                scratch=self._scratch,
            )
            self._told.publish("import", image.id, name)
            return image

        return await self._bootstraps.make((name, mirror, variant, force), work, progress)


def _asked_for(record: Container, image_id: Digest) -> str:
    """The reference by which a container uses an image: its own image, or one that it mounts."""
    if record.image_id == image_id:
        return record.image_ref
    return next((point.source for point in record.mounts if point.type == "image"), "")


def _matches(image: ImageSummary, filters: Mapping[str, Sequence[str]]) -> bool:
    for value in filters.get("dangling", ()):
        if value.lower() not in ("true", "1", "false", "0"):
            raise InvalidArgument(f"invalid filter 'dangling=[{' '.join(filters['dangling'])}]'")
        if image.dangling != (value.lower() in ("true", "1")):
            return False
    for wanted in filters.get("label", ()):
        key, equals, value = wanted.partition("=")
        if key not in image.labels or (equals and image.labels[key] != value):
            return False
    return True


def _only_names(image: ImageSummary, patterns: Sequence[Pattern]) -> ImageSummary | None:
    """The image with only the names that match, as ``docker images PATTERN`` shows it."""
    if not patterns:
        return image
    names = tuple(
        name
        for name in image.names
        if any(
            p.fullmatch(form)
            for p in patterns
            for form in (name.familiar_name, name.familiar(), str(name), name.name)
        )
    )
    return replace(image, names=names) if names else None
