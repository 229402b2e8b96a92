"""The room of builds, put together."""

from __future__ import annotations

from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.fetching import SourceFetcher
from wherry.engine.builds.runner import Runner
from wherry.engine.builds.service import BuildService
from wherry.engine.containers.wiring import ContainerRoom
from wherry.engine.ground import Ground, Stores
from wherry.engine.images.wiring import ImageRoom
from wherry.storage.contexts import ContextStore


def wire(ground: Ground, stores: Stores, images: ImageRoom, containers: ContainerRoom) -> BuildService:
    root = ground.settings.root / "build"
    cache = BuildCache(root, stores.builds, stores.snapshotter, ContextStore(root), stores.images.collect)
    runner = Runner(
        settings=ground.settings,
        runtimes=stores.runtimes,
        network=stores.network,
        sandboxes=containers.sandboxes,
        devices=containers.devices,
    )
    return BuildService(
        ground,
        images,
        store=stores.images,
        cache=cache,
        runner=runner,
        fetcher=SourceFetcher(cache),
    )
