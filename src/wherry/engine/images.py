"""Images for people: what the store can do, with events and with what containers use."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

from wherry.engine.events import EventBus, caller_name
from wherry.engine.refetch import Refetcher
from wherry.errors import InvalidArgument
from wherry.images import archive, archive_save, assemble, bootstrap
from wherry.images import delete as deletion
from wherry.images import versions as image_versions
from wherry.images.compare import compare
from wherry.images.store import ImageStore
from wherry.images.versions import Keep, protected
from wherry.linux import trees
from wherry.model import reference
from wherry.model.comparison import Comparison
from wherry.model.digest import Digest
from wherry.model.images import (
    Deleted,
    HistoryEntry,
    Image,
    ImageSummary,
    ImageUser,
    ManifestSummary,
    NameVersion,
    Untagged,
)
from wherry.model.oci import ImageRunConfig, Platform
from wherry.state.containers import Containers
from wherry.storage.unpack import Unpacker

P = ParamSpec("P")
T = TypeVar("T")
_BULK_THREADS = 8

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ImageDetails:
    image: Image
    size: int
    manifests: Sequence[ManifestSummary]


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
        """:param scratch: where base images are put together; what a killed daemon left there goes."""
        trees.remove(scratch)
        scratch.mkdir(mode=0o700)
        self._scratch = scratch
        self._refetcher = refetcher
        images.who = caller_name
        self._keep = keep
        self._images = images
        self._unpacker = unpacker
        self._containers = containers
        self._events = events
        self._bulk = ThreadPoolExecutor(_BULK_THREADS, "bulk")

    async def _in_bulk(self, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run what reads or writes for as long as a client likes on threads that nothing else needs."""
        # The context says who asked, for the history of names.
        context = contextvars.copy_context()
        call = functools.partial(context.run, functools.partial(work, *arguments, **keywords))
        return await asyncio.get_running_loop().run_in_executor(self._bulk, call)

    # ---- looking ---------------------------------------------------------------------------------------

    async def select(
        self,
        filters: Mapping[str, Sequence[str]],
        *,
        manifests: bool = False,
        shared_size: bool = False,
    ) -> list[tuple[ImageSummary, int]]:
        """Images and how many containers use each, newest first."""
        found = await asyncio.to_thread(self._images.list, manifests=manifests, shared_size=shared_size)
        counts: dict[str, int] = {}
        for row in self._containers.all():
            counts[row.record.image_id] = counts.get(row.record.image_id, 0) + 1
        before = [self._created(name) for name in filters.get("before", ())]
        since = [self._created(name) for name in filters.get("since", ())]
        kept = [
            _only_names(image, filters.get("reference", ()))
            for image in found
            if _matches(image, filters)
            and all(image.created < limit for limit in before)
            and all(image.created > limit for limit in since)
        ]
        return [(image, counts.get(image.id, 0)) for image in kept if image is not None]

    def _created(self, name: str) -> int:
        return (self._images.resolve(name).created_ns or 0) // 10**9

    async def inspect(self, name: str, platform: Platform | None = None) -> ImageDetails:
        def work() -> ImageDetails:
            image = self._images.resolve(name, platform)
            return ImageDetails(image, self._images.size(image.id), self._images.manifests(image.id))

        return await asyncio.to_thread(work)

    async def history(self, name: str, platform: Platform | None = None) -> Sequence[HistoryEntry]:
        return await asyncio.to_thread(lambda: self._images.history(self._images.resolve(name, platform)))

    async def compare(self, before: str, after: str, platform: Platform | None = None) -> Comparison:
        """What makes an image differ from another. :raises NotFound: there is no such image."""

        def work() -> Comparison:
            return compare(
                self._images, self._images.resolve(before, platform), self._images.resolve(after, platform)
            )

        return await self._in_bulk(work)

    async def disk_usage(self) -> int:
        """Bytes of everything images hold, each blob and snapshot counted once."""
        return (await asyncio.to_thread(deletion.disk_usage, self._images)).total

    # ---- changing --------------------------------------------------------------------------------------

    async def tag(self, name: str, repository: str, tag: str) -> None:
        """:raises InvalidArgument: not a name. :raises NotFound: no such image."""
        ref = reference.parse(repository)
        ref = ref.with_tag(tag) if tag else ref.with_default_tag()
        target = self._images.find(name)
        await asyncio.to_thread(self._images.tag, ref, target, why="tag")
        self._events.publish("image", "tag", target.digest, {"name": ref.familiar()})

    async def delete(self, name: str, *, force: bool) -> list[Untagged | Deleted]:
        removed = await asyncio.to_thread(deletion.delete, self._images, name, force=force, users=self._users)
        self._publish_removed(removed)
        return removed

    def _publish_removed(self, removed: Iterable[Untagged | Deleted]) -> None:
        for item in removed:
            if isinstance(item, Untagged):
                self._events.publish("image", "untag", item.reference, {"name": item.reference})
            else:
                self._events.publish("image", "delete", item.id, {"name": item.id})

    def _users(self, image_id: Digest) -> list[ImageUser]:
        return [
            ImageUser(row.id, row.state.status in ("running", "paused", "restarting"))
            for row in self._containers.all()
            if row.record.image_id == image_id
        ]

    async def prune(
        self,
        *,
        dangling: bool,
        until: int | None,
        labels: Callable[[Mapping[str, str]], bool],
        versions: bool = False,
    ) -> tuple[list[Untagged | Deleted], int]:
        """:param until: seconds since the epoch. :param labels: which may go. :param versions: earlier
        versions of names go as well, which are kept for a rollback otherwise."""
        spared = set() if versions else await asyncio.to_thread(protected, self._images, self._keep)
        removed, freed = await asyncio.to_thread(
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
        """What a name has pointed at, newest first. :raises NotFound: it was never seen."""
        return await asyncio.to_thread(image_versions.of_name, self._images, reference.parse(name))

    async def rollback(self, name: str, wanted: str) -> tuple[NameVersion, NameVersion]:
        """Point a name at an earlier version; that one, and the one it had."""
        ref = reference.parse(name).with_default_tag()
        version, before = await asyncio.to_thread(image_versions.rollback, self._images, ref, wanted)
        attributes = {"name": ref.familiar(), "from": before.target, "why": "rollback"}
        self._events.publish("image", "tag", version.target, attributes)
        return version, before

    # ---- archives --------------------------------------------------------------------------------------

    async def load(self, source: BinaryIO, *, platforms: Sequence[Platform], progress: Progress) -> list[str]:
        """Load an archive; returns the lines Docker prints about each image."""
        loaded = await self._in_bulk(
            archive.load,
            self._images,
            self._unpacker,
            source,
            platforms=platforms,
            progress=progress,
        )
        lines = []
        for item in loaded:
            self._events.publish("image", "load", item.id, {"name": item.id})
            lines += [f"Loaded image: {name.familiar()}" for name in item.names]
            if not item.names:
                lines.append(f"Loaded image ID: {item.id}")
        return lines

    async def save(self, names: Sequence[str], target: BinaryIO, *, platforms: Sequence[Platform]) -> None:
        for name in names:
            found = self._images.find(name)
            self._events.publish("image", "save", found.digest, {"name": name})
        await self._in_bulk(archive_save.save, self._images, list(names), target, platforms=platforms)

    async def check_names(self, names: Sequence[str]) -> None:
        """Before the answer begins: have everything that goes into it here.

        :raises NotFound: an image is not there, or a layer of it that was let go of cannot be had again.
        """
        for target in [self._images.find(name) for name in names]:
            with self._images.leases.hold("save") as lease:
                await self._refetcher.layers(target, (), lease)

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
        image = await self._in_bulk(
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
        self._events.publish("image", "import", image.id, {"name": shown})
        return image

    async def bootstrap(
        self, name: str, *, progress: Progress, mirror: str, variant: str, force: bool
    ) -> Image:
        image = await self._in_bulk(
            bootstrap.bootstrap,
            self._images,
            self._unpacker,
            name,
            progress=progress,
            mirror=mirror or None,
            variant=variant or None,
            force=force,
            scratch=self._scratch,
        )
        self._events.publish("image", "import", image.id, {"name": name})
        return image


def _matches(image: ImageSummary, filters: Mapping[str, Sequence[str]]) -> bool:
    for value in filters.get("dangling", ()):
        if value.lower() not in ("true", "1", "false", "0"):
            raise InvalidArgument(f"invalid filter 'dangling={value}'")
        if image.dangling != (value.lower() in ("true", "1")):
            return False
    for wanted in filters.get("label", ()):
        key, equals, value = wanted.partition("=")
        if key not in image.labels or (equals and image.labels[key] != value):
            return False
    return True


def _only_names(image: ImageSummary, patterns: Sequence[str]) -> ImageSummary | None:
    """The image with only the names that match, as ``docker images PATTERN`` shows it."""
    if not patterns:
        return image
    names = tuple(
        name
        for name in image.names
        if any(_reference_matches(p, name.familiar_name, name.familiar(), str(name)) for p in patterns)
    )
    return replace(image, names=names) if names else None


def _reference_matches(pattern: str, *forms: str) -> bool:
    """path.Match of Go: ``*`` and ``?`` do not cross a slash."""
    expression = ""
    for char in pattern:
        expression += "[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)
    return any(re.fullmatch(expression, form) for form in forms)
