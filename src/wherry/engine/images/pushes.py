"""Push: which names are sent where, with Docker's messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as with_fields
from typing import Any

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.images.onepush import Pushed, Pushing
from wherry.engine.images.refetch import Refetcher
from wherry.engine.images.told import ImageEvents
from wherry.errors import NotFound
from wherry.images.store import ImageStore
from wherry.model import reference
from wherry.model.credentials import Credentials
from wherry.model.oci import Descriptor, Platform
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution
from wherry.registry.errors import RegistryError, explain

Progress = Callable[[dict[str, Any]], None]


class PushService:
    """Used on the loop only."""

    def __init__(
        self, *, images: ImageStore, distribution: Distribution, refetcher: Refetcher, events: EventBus
    ) -> None:
        self._images = images
        self._refetcher = refetcher
        self._distribution = distribution
        self._told = ImageEvents(events, images)

    async def push(
        self,
        name: Reference,
        *,
        platform: Platform | None,
        credentials: Sequence[Credentials],
        progress: Progress,
    ) -> None:
        """Send an image; for a repository without a tag, every tag of it.

        :raises NotFound: no such image. :raises WherryError: see :func:`wherry.registry.errors.explain`.
        """
        names = [name] if name.tag else await threads.short(self._tags, name)
        targets = [(one, await threads.short(self._target, one)) for one in names]
        progress({"status": f"The push refers to repository [{name.name}]"})
        for one, target in targets:
            pushed = await self._one(one, target, platform, credentials, progress)
            self._tell(one, pushed, progress)
            self._told.publish("push", target.digest, one.familiar_name, actor=one.familiar())

    async def push_target(
        self, name: Reference, target: Descriptor, *, credentials: Sequence[Credentials], progress: Progress
    ) -> None:
        """Send an image by its digest alone: it gets no tag there. Raises what :meth:`push` raises."""
        bare = with_fields(name, tag=None, digest=target.digest)
        await self._one(bare, target, None, credentials, progress)
        progress({"status": f"digest: {target.digest} size: {target.size}"})

    def _tags(self, name: Reference) -> list[Reference]:
        names = [reference.parse(text) for text, _ in self._images.rows.names()]
        found = [one for one in names if one.name == name.name and one.tag]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        return found

    def _target(self, name: Reference) -> Descriptor:
        if self._images.rows.target_of(str(name)) is None:
            raise NotFound(f"tag does not exist: {name.familiar()}")
        return self._images.find(str(name))

    async def _one(
        self,
        name: Reference,
        target: Descriptor,
        platform: Platform | None,
        credentials: Sequence[Credentials],
        progress: Progress,
    ) -> Pushed:
        try:
            with self._images.leases.hold("push") as lease:
                await threads.short(self._keep, target, lease.keep_content)
                await self._refetcher.layers(target, credentials, lease)
                async with self._distribution.session() as session:
                    (repository,) = await self._distribution.open(
                        session, name, credentials, actions="pull,push"
                    )
                    uploads = self._distribution.config.uploads
                    pushing = Pushing(self._images, repository, name, progress, uploads=uploads)
                    return await pushing.run(target, platform)
        except RegistryError as e:
            raise explain(e, name, action="push") from e

    def _keep(self, target: Descriptor, keep: Callable[[Any], None]) -> None:
        """Keep the content that is being sent, in case the image is removed meanwhile."""
        roles, _ = self._images.graph.closure(target)
        for digest in roles:
            keep(digest)

    def _tell(self, name: Reference, pushed: Pushed, progress: Progress) -> None:
        sent = pushed.target
        progress({"status": f"{name.tag}: digest: {sent.digest} size: {sent.size}"})
        if pushed.instead_of is not None:
            aux = {
                "manifestPushedInsteadOfIndex": True,
                "originalIndex": _shown(pushed.instead_of),
                "selectedManifest": _shown(sent),
            }
            progress({"progressDetail": {}, "aux": aux})
        progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": sent.digest, "Size": sent.size}})


def _shown(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
