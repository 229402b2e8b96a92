"""Running pulls: equal requests share one, and it is cancelled when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.images.onepull import Pulled, Pulling
from wherry.engine.images.told import ImageEvents
from wherry.errors import Forbidden, InvalidArgument, Unavailable, WherryError
from wherry.images import discard
from wherry.images.store import ImageStore
from wherry.model.credentials import Credentials
from wherry.model.oci import Platform
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution
from wherry.registry.errors import RegistryError, explain

Progress = Callable[[dict[str, Any]], None]
Known = Sequence[Credentials]

_TAGS_MAX = 10_000


class _Shared:
    """One pull and its followers. A follower that joins late first gets the messages sent so far."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Pulled] | None = None
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Progress] = []
        self._told: dict[str, dict[str, Any]] = {}

    def tell(self, message: dict[str, Any]) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._tell, message)

    def _tell(self, message: dict[str, Any]) -> None:
        self._told[str(message.get("id", ""))] = message
        for listener in self._listeners:
            listener(message)

    async def follow(self, progress: Progress) -> Pulled:
        assert self.task is not None
        for message in self._told.values():
            progress(message)
        self._listeners.append(progress)
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if len(self._listeners) == 1 and not self.task.done():
                self.task.cancel()
                await asyncio.wait([self.task])
            raise
        finally:
            self._listeners.remove(progress)


class PullService:
    """Used on the loop only."""

    def __init__(self, *, images: ImageStore, distribution: Distribution, events: EventBus) -> None:
        self._images = images
        self._distribution = distribution
        self._told = ImageEvents(events, images)
        self._running: dict[tuple[object, ...], _Shared] = {}

    @property
    def under_way(self) -> int:
        return len(self._running)

    async def pull(
        self, reference: Reference, *, platform: Platform | None, credentials: Known, progress: Progress
    ) -> None:
        """Fetch an image; for a repository without a tag, every tag of it.

        A cancelled caller leaves; when the last one leaves, the pull is cancelled. Data received so far is
        kept, and the next pull resumes from it.

        :raises WherryError: of the kind that fits the failure; see :func:`wherry.registry.errors.explain`.
        """
        if reference.familiar_name == "scratch":
            raise Forbidden("'scratch' is a reserved name")
        if reference.tag is None and reference.digest is None:
            for tag in await self._tags(reference, credentials):
                await self._one(reference.with_tag(tag), platform, credentials, progress)
        else:
            await self._one(reference, platform, credentials, progress)

    async def _tags(self, reference: Reference, credentials: Known) -> list[str]:
        try:
            async with self._distribution.session() as session:
                sources = await self._distribution.open(session, reference, credentials)
                tags = await sources[-1].tags()
        except RegistryError as e:
            raise explain(e, reference) from e
        if len(tags) > _TAGS_MAX:
            raise InvalidArgument(f"cannot pull {reference.familiar()}: it has {len(tags)} tags")
        return tags

    async def _one(
        self, reference: Reference, platform: Platform | None, credentials: Known, progress: Progress
    ) -> None:
        key = (str(reference), str(platform or ""), tuple(credentials))
        while True:
            shared = self._running.get(key)
            if shared is None:
                shared = self._running[key] = _Shared()
                shared.task = asyncio.create_task(self._run(key, shared, reference, platform, credentials))
            try:
                pulled = await shared.follow(progress)
                break
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                # the caller who started it left in the same moment: start again
        shown = reference.familiar()
        progress({"status": f"Digest: {pulled.target}"})
        news = "Downloaded newer image for" if pulled.changed else "Image is up to date for"
        progress({"status": f"Status: {news} {shown}"})

    async def _run(
        self,
        key: tuple[object, ...],
        shared: _Shared,
        reference: Reference,
        platform: Platform | None,
        credentials: Known,
    ) -> Pulled:
        work = f"pull {reference} {platform or ''}"
        try:
            with self._images.leases.resume(work, worthwhile=_worthwhile) as lease:
                async with self._distribution.session() as session:
                    sources = await self._distribution.open(session, reference, credentials)
                    pulling = Pulling(
                        self._images,
                        self._distribution.fetcher,
                        sources,
                        reference,
                        platform,
                        lease,
                        shared.tell,
                        downloads=self._distribution.config.downloads,
                    )
                    pulled = await pulling.run()
            if self._images.discards:
                await threads.disk(discard.blobs, self._images, pulled.target)
        except RegistryError as e:
            await self._clean_up(e)
            raise explain(e, reference) from e
        except WherryError as e:
            await self._clean_up(e)
            shown = reference.familiar()
            if shown in e.message:
                raise
            raise type(e)(f"cannot pull {shown} (registry {reference.domain}): {e.message}") from e
        finally:
            del self._running[key]
        shown = reference.familiar()
        self._told.publish("pull", pulled.target, reference.familiar_name, actor=shown)
        return pulled

    async def _clean_up(self, error: WherryError) -> None:
        if not _worthwhile(error):
            await threads.disk(self._images.collect)

    async def close(self) -> None:
        """Cancel all running pulls; the data received so far is kept."""
        tasks = [shared.task for shared in self._running.values() if shared.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _worthwhile(error: BaseException) -> bool:
    """Whether the data of a failed pull is kept for the next try: not if the image itself is invalid."""
    if isinstance(error, RegistryError):
        return error.temporary
    return isinstance(error, Unavailable) or not isinstance(error, WherryError)
