"""The composition root: the engine's use cases put together on open stores, and the server on those."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from wherry.api.app import make_server
from wherry.api.server import ApiServer
from wherry.api.services import Services
from wherry.daemon.config import Config
from wherry.daemon.stores import Stores, open_network, open_stores
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.fetching import Fetcher
from wherry.engine.builds.runner import Runner
from wherry.engine.builds.service import BuildService
from wherry.engine.commit import CommitService
from wherry.engine.containers import ContainerService
from wherry.engine.control import Control
from wherry.engine.copies import CopyService
from wherry.engine.devices import Devices
from wherry.engine.disk import DiskService
from wherry.engine.execcontrol import ExecControl
from wherry.engine.execs import ExecService
from wherry.engine.files import FileService
from wherry.engine.fsck import FsckService
from wherry.engine.health import HealthMonitor
from wherry.engine.holds import Holds
from wherry.engine.hotplug import Hotplug
from wherry.engine.images import ImageService
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.links import Links
from wherry.engine.listing import ListingService
from wherry.engine.logkeeping import LogKeeping
from wherry.engine.logs import LogService
from wherry.engine.networks import NetworkService
from wherry.engine.probes import Prober
from wherry.engine.prune import PruneService
from wherry.engine.pulls import PullService
from wherry.engine.pushes import PushService
from wherry.engine.reconcile import Reconciler
from wherry.engine.refetch import Refetcher
from wherry.engine.registries import RegistryService
from wherry.engine.removal import Removal
from wherry.engine.sandboxes import Sandboxes
from wherry.engine.secrets import SecretService
from wherry.engine.stats import StatsService
from wherry.engine.stillness import Stillness
from wherry.engine.system import SystemService
from wherry.engine.top import TopService
from wherry.engine.update import UpdateService
from wherry.engine.upkeep import Upkeep
from wherry.engine.volumefiles import VolumeFileService
from wherry.engine.volumeregistry import VolumeRegistryService
from wherry.engine.volumes import VolumeService
from wherry.engine.volumeversions import VolumeVersionService
from wherry.errors import Conflict
from wherry.linux.execgroups import ExecGroups
from wherry.logs.keeper import Keeper
from wherry.model import oci
from wherry.runtime.cdi import Registry
from wherry.runtime.spec import warm_up
from wherry.runtime.task import conmon_fd
from wherry.state.builds import BuildRows
from wherry.state.containers import Containers
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.storage.contexts import ContextStore
from wherry.wire import stats as wire_stats


@dataclass(frozen=True)
class Core:
    """The use cases that others are built on: what makes containers run, and end."""

    holds: Holds
    links: Links
    sandboxes: Sandboxes
    devices: Devices
    logs: LogKeeping
    lifecycle: Lifecycle
    control: Control
    removal: Removal
    groups: ExecGroups
    execs: ExecService
    prober: Prober
    health: HealthMonitor


@dataclass
class Daemon:
    """Everything that lives as long as the process."""

    config: Config
    stores: Stores
    core: Core
    stats: StatsService
    reconciler: Reconciler
    services: Services
    server: ApiServer
    _background: list[asyncio.Task[object]] = field(default_factory=list)

    async def start(self) -> None:
        """Bring the host into the state that the rows describe."""
        await asyncio.to_thread(self.stores.network.start)
        await self.reconciler.run()
        self._background = [
            asyncio.create_task(asyncio.to_thread(work))
            for work in (lambda: warm_up(oci.host().architecture), self.stores.images.collect)
        ]
        self.services.upkeep.start()
        self.services.volume_versions.start()

    async def stop(self) -> None:
        """Let go of everything; containers run on."""
        self.stores.events.close()
        await self.services.upkeep.close()
        await self.services.volume_versions.close()
        self.services.volume_files.close()
        await self.services.builds.close()
        await self.services.pulls.close()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.core.health.close()
        await self.stats.close()
        self.core.prober.close()
        await self.core.lifecycle.close()
        await self.core.logs.close()
        self.core.execs.close()
        await asyncio.to_thread(self.stores.network.shutdown)
        self.stores.db.close()


def build(config: Config) -> Daemon:
    """Open the root and make every service. Must run on the loop's thread.

    :raises Unavailable: the host lacks something without which no container can run; the text names it.
    """
    s = open_stores(config)
    core = _core(s, config)
    stats = StatsService(
        settings=s.settings,
        containers=s.containers,
        live=s.live,
        encode=wire_stats.encode,
        encode_stopped=wire_stats.encode_stopped,
    )
    reconciler = Reconciler(
        settings=s.settings,
        containers=s.containers,
        snapshotter=s.snapshotter,
        volumes=s.volumes,
        volume_versions=s.volume_versions,
        holds=core.holds,
        network=s.network,
        runtimes=s.runtimes,
        lifecycle=core.lifecycle,
        removal=core.removal,
        logs=core.logs,
        events=s.events,
        live=s.live,
    )
    services = _services(s, core, stats, config)
    return Daemon(config, s, core, stats, reconciler, services, make_server(services))


def _core(s: Stores, config: Config) -> Core:
    settings, containers, events, live = s.settings, s.containers, s.events, s.live
    holds = Holds(s.volumes, s.images, s.snapshotter)
    logs = LogKeeping(settings=settings, keeper=Keeper(), events=events)
    links = Links(settings=settings, containers=containers, network=s.network)
    sandboxes = Sandboxes(settings=settings, network=s.network, containers=containers, links=links, live=live)
    devices = Devices(Registry(config.cdi_directories))
    lifecycle = Lifecycle(
        settings=settings,
        containers=containers,
        snapshotter=s.snapshotter,
        volumes=s.volumes,
        secrets=s.secrets,
        sandboxes=sandboxes,
        devices=devices,
        runtimes=s.runtimes,
        logs=logs,
        events=events,
        live=live,
    )
    control = Control(settings=settings, containers=containers, lifecycle=lifecycle, events=events, live=live)
    removal = Removal(
        settings=settings,
        containers=containers,
        snapshotter=s.snapshotter,
        holds=holds,
        links=links,
        lifecycle=lifecycle,
        control=control,
        logs=logs,
        events=events,
        live=live,
    )
    groups = ExecGroups()
    execs = ExecService(
        settings=settings, containers=containers, runtimes=s.runtimes, events=events, live=live, groups=groups
    )
    prober = Prober(settings=settings, runtimes=s.runtimes, groups=groups)
    health = HealthMonitor(
        containers=containers, live=live, events=events, runner=prober, act=control.end_unhealthy
    )
    lifecycle.on_running += [
        lambda container_id, adopted: health.running(container_id, adopted=adopted),
        lambda container_id, adopted: execs.adopt(container_id) if adopted else None,
    ]
    return Core(
        holds, links, sandboxes, devices, logs, lifecycle, control, removal, groups, execs, prober, health
    )


def _services(s: Stores, core: Core, stats: StatsService, config: Config) -> Services:
    settings, containers, events, live = s.settings, s.containers, s.events, s.live
    stillness = Stillness(settings=settings, containers=containers, live=live)
    versions = VolumeVersionService(
        volumes=s.volumes,
        versions=s.volume_versions,
        rows=s.volume_snapshots,
        containers=containers,
        stillness=stillness,
        events=events,
        live=live,
    )
    volume_files = VolumeFileService(volumes=s.volumes, versions=versions, events=events)
    service = ContainerService(
        settings=settings,
        containers=containers,
        images=s.images,
        snapshotter=s.snapshotter,
        holds=core.holds,
        secrets=s.secrets,
        sandboxes=core.sandboxes,
        links=core.links,
        devices=core.devices,
        events=events,
        live=live,
    )
    refetcher = Refetcher(images=s.images, distribution=s.distribution)
    images = ImageService(
        images=s.images,
        unpacker=s.unpacker,
        containers=containers,
        events=events,
        keep=config.keep_versions,
        refetcher=refetcher,
        scratch=config.root / "bootstrap",
    )
    hotplug = Hotplug(
        holds=core.holds, volumes=s.volumes, snapshotter=s.snapshotter, sandboxes=core.sandboxes
    )
    pulls = PullService(images=s.images, distribution=s.distribution, events=events)
    pushes = PushService(images=s.images, distribution=s.distribution, refetcher=refetcher, events=events)
    return Services(
        containers=service,
        listing=ListingService(containers=service, images=s.images),
        lifecycle=core.lifecycle,
        control=core.control,
        removal=core.removal,
        update=UpdateService(
            settings=settings,
            containers=containers,
            runtimes=s.runtimes,
            holds=core.holds,
            hotplug=hotplug,
            events=events,
            live=live,
        ),
        execs=core.execs,
        exec_control=ExecControl(
            settings=settings, containers=containers, execs=core.execs, groups=core.groups
        ),
        commit=CommitService(
            settings=settings,
            containers=containers,
            images=s.images,
            snapshotter=s.snapshotter,
            events=events,
            stillness=stillness,
        ),
        files=FileService(
            settings=settings,
            containers=containers,
            snapshotter=s.snapshotter,
            volumes=s.volumes,
            events=events,
            live=live,
        ),
        logs=LogService(settings=settings, containers=containers, live=live, keeper=core.logs.keeper),
        top=TopService(settings=settings, containers=containers, live=live),
        stats=stats,
        images=images,
        pulls=pulls,
        builds=_builds(s, core, pulls, pushes),
        pushes=pushes,
        disk=DiskService(root=config.root, snapshotter=s.snapshotter),
        fsck=FsckService(images=s.images, refetcher=refetcher, containers=containers),
        upkeep=Upkeep(
            root=config.root,
            policy=config.image_policy,
            keep=config.keep_versions,
            images=s.images,
            service=images,
            containers=containers,
        ),
        copies=CopyService(images=s.images, distribution=s.distribution),
        registries=RegistryService(distribution=s.distribution, content=s.images.content),
        volumes=VolumeService(volumes=s.volumes, containers=containers, events=events),
        volume_versions=versions,
        volume_files=volume_files,
        volume_registry=VolumeRegistryService(
            volumes=s.volumes,
            files=volume_files,
            images=s.images,
            distribution=s.distribution,
            events=events,
        ),
        networks=NetworkService(
            network=s.network, containers=containers, sandboxes=core.sandboxes, events=events, live=live
        ),
        secrets=SecretService(secrets=s.secrets, containers=containers, events=events),
        prune=PruneService(containers=service, removal=core.removal, snapshotter=s.snapshotter),
        system=SystemService(
            settings=settings,
            engine_id=s.engine_id,
            containers=service,
            images=s.images,
            snapshotter=s.snapshotter,
            devices=core.devices,
        ),
        events=events,
    )


def _builds(s: Stores, core: Core, pulls: PullService, pushes: PushService) -> BuildService:
    rows = BuildRows(s.db)
    root = s.settings.root / "build"
    cache = BuildCache(root, rows, s.snapshotter, ContextStore(root), s.images.collect)
    runner = Runner(settings=s.settings, runtimes=s.runtimes, network=s.network, devices=core.devices)
    return BuildService(
        images=s.images,
        cache=cache,
        rows=rows,
        runner=runner,
        fetcher=Fetcher(cache),
        pulls=pulls,
        pushes=pushes,
        events=s.events,
        run=s.settings.run,
    )


def teardown(config: Config) -> None:
    """Take back what a daemon leaves on the host for its next start: bridge, firewall table, namespaces.

    Images, volumes and stopped containers stay.
    :raises Conflict: a container still runs.
    """
    path = config.root / "wherry.db"
    if not path.exists():
        return
    db = Database(path, MIGRATIONS)
    try:
        for row in Containers(db).all():
            task = config.run / "tasks" / row.id
            fd = conmon_fd(task, row.state.conmon_pid) if row.state.conmon_pid else None
            if fd is not None:
                os.close(fd)
                raise Conflict(f"cannot tear down: container {row.name} ({row.id[:12]}) still runs")
        network = open_network(config, db)
        network.start()
        network.teardown_all()
    finally:
        db.close()
