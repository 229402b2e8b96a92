"""Cache from elsewhere and for elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.layers import Layers
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.worker import BuildWorker, Inputs
from wherry.engine.pulls import PullService
from wherry.engine.pushes import PushService
from wherry.errors import NotImplemented_
from wherry.images.store import ImageStore
from wherry.storage.leases import Lease

if TYPE_CHECKING:
    from wherry.engine.builds.finishing import PlatformResult

Tell = Callable[[dict[str, Any]], None]


class Exchange:
    def __init__(
        self,
        *,
        cache: BuildCache,
        images: ImageStore,
        layers: Layers,
        pulls: PullService,
        pushes: PushService,
    ) -> None:
        self._cache, self._images, self._layers = cache, images, layers
        self._pulls, self._pushes = pulls, pushes

    async def load(self, request: BuildRequest, inputs: Inputs, worker: BuildWorker, tell: Tell) -> None:
        if request.cache_from:
            raise NotImplemented_("--cache-from is not implemented yet")

    async def store(
        self,
        request: BuildRequest,
        inputs: Inputs,
        results: Sequence[PlatformResult],
        lease: Lease,
        tell: Tell,
    ) -> None:
        if request.cache_to:
            raise NotImplemented_("--cache-to is not implemented yet")
