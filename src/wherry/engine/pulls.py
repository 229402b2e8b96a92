"""Pulls that are under way: started, shared by who asks for the same, ended when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from wherry.engine.events import EventBus
from wherry.engine.pulling import Pulled, Pulling
from wherry.errors import InvalidArgument, Unavailable, WherryError
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
    """One pull and who follows it; a late one is told first what the others know."""

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
        self._events = events
        self._running: dict[tuple[object, ...], _Shared] = {}

    async def pull(
        self, reference: Reference, *, platform: Platform | None, credentials: Known, progress: Progress
    ) -> None:
        """Fetch an image, or with a bare repository every tag of it.

        A caller that is cancelled leaves; the last one to leave ends the pull. What came stays and is
        continued by the next one.

        :raises WherryError: named after what went wrong; see :func:`wherry.registry.errors.explain`.
        """
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
                # the one who began it left in the same moment: begin again
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
                await asyncio.to_thread(discard.blobs, self._images, pulled.target)
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
        self._events.publish("image", "pull", reference.familiar(), {"name": reference.familiar_name})
        return pulled

    async def _clean_up(self, error: WherryError) -> None:
        if not _worthwhile(error):
            await asyncio.to_thread(self._images.collect)

    async def close(self) -> None:
        """End what is under way; what came of it stays."""
        tasks = [shared.task for shared in self._running.values() if shared.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _worthwhile(error: BaseException) -> bool:
    """Whether what came of a pull is kept for the next try: not when the image itself is wrong."""
    if isinstance(error, RegistryError):
        return error.temporary
    return isinstance(error, Unavailable) or not isinstance(error, WherryError)
