"""The composition root: the only place that names concrete drivers and puts the rooms together."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from wherry.api.app import make_server
from wherry.api.server import ApiServer
from wherry.api.services import Services
from wherry.daemon.config import DEFAULT_ROOT, Config
from wherry.engine.commit import CommitService
from wherry.engine.containers import ContainerService
from wherry.engine.control import Control
from wherry.engine.devices import Devices
from wherry.engine.events import EventBus
from wherry.engine.execcontrol import ExecControl
from wherry.engine.execs import ExecService
from wherry.engine.files import FileService
from wherry.engine.health import HealthMonitor
from wherry.engine.holds import Holds
from wherry.engine.hotplug import Hotplug
from wherry.engine.images import ImageService
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.links import Links
from wherry.engine.listing import ListingService
from wherry.engine.live import LiveSet
from wherry.engine.logkeeping import LogKeeping
from wherry.engine.logs import LogService
from wherry.engine.names import new_engine_id
from wherry.engine.networks import NetworkService
from wherry.engine.probes import Prober
from wherry.engine.prune import PruneService
from wherry.engine.reconcile import Reconciler
from wherry.engine.removal import Removal
from wherry.engine.sandboxes import Sandboxes
from wherry.engine.settings import Settings
from wherry.engine.stats import StatsService
from wherry.engine.system import SystemService
from wherry.engine.top import TopService
from wherry.engine.update import UpdateService
from wherry.engine.volumes import VolumeService
from wherry.errors import Conflict, InvalidArgument, Unavailable
from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.linux import cgroups
from wherry.linux.execgroups import ExecGroups
from wherry.logs.keeper import Keeper
from wherry.model import oci
from wherry.network.manager import NetworkManager
from wherry.network.types import DEFAULT_ADDRESS_POOLS, DEFAULT_INSTANCE, NetworkConfig
from wherry.runtime.cdi import Registry
from wherry.runtime.spec import warm_up
from wherry.runtime.task import Runtime, conmon_fd, find_program
from wherry.state.containers import Containers
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.events import EventLog
from wherry.state.images import Images
from wherry.state.meta import Meta
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.state.volumes import Volumes
from wherry.storage.content import ContentStore
from wherry.storage.drivers import overlay
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases
from wherry.storage.snapshots import Snapshotter
from wherry.storage.unpack import Unpacker
from wherry.volumes.store import VolumeStore
from wherry.wire import stats as wire_stats

log = logging.getLogger(__name__)

_THREADS = 16
_RUNTIMES = ("crun", "runc")


@dataclass
class Daemon:
    """Everything that lives as long as the process."""

    config: Config
    db: Database
    network: NetworkManager
    lifecycle: Lifecycle
    execs: ExecService
    logs: LogKeeping
    prober: Prober
    health: HealthMonitor
    stats: StatsService
    events: EventBus
    reconciler: Reconciler
    images: ImageStore
    server: ApiServer
    _background: list[asyncio.Task[object]] = field(default_factory=list)

    async def start(self) -> None:
        """Bring the host into the state that the rows describe."""
        await asyncio.to_thread(self.network.start)
        await self.reconciler.run()
        self._background = [
            asyncio.create_task(asyncio.to_thread(work))
            for work in (lambda: warm_up(oci.host().architecture), self.images.collect)
        ]

    async def stop(self) -> None:
        """Let go of everything; containers run on."""
        self.events.close()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.health.close()
        await self.stats.close()
        self.prober.close()
        await self.lifecycle.close()
        await self.logs.close()
        self.execs.close()
        await asyncio.to_thread(self.network.shutdown)
        self.db.close()


def build(config: Config) -> Daemon:
    """Open the root and make every service. Must run on the loop's thread.

    :raises Unavailable: the host lacks something without which no container can run; the text names it.
    """
    for directory, mode in ((config.root, 0o711), (config.run, 0o711)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    # Nothing below is for other users, whatever the modes inside layers say.
    private = (config.root / name for name in ("containers", "content", "snapshots"))
    for directory in (*private, config.run / "tasks", config.run / "runtime"):
        directory.mkdir(exist_ok=True, mode=0o700)
        directory.chmod(0o700)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "worker"))
    for name in cgroups.mount_missing_controllers():
        log.info("mounted the %s controller, without which the OCI runtime does not run here", name)
    _give_realtime(config)
    db = Database(config.root / "wherry.db", MIGRATIONS)
    meta = Meta(db)
    engine_id = meta.set_default("engine_id", new_engine_id())
    snapshotter = _snapshotter(config, db, meta)
    runtimes = _runtimes(config)
    default_runtime = config.default_runtime or next(iter(runtimes))
    if default_runtime not in runtimes:
        raise InvalidArgument(f"unknown default runtime {default_runtime}: known are {', '.join(runtimes)}")
    settings = Settings(
        root=config.root,
        run=config.run,
        default_runtime=default_runtime,
        runtimes=tuple(runtimes),
        cgroup_parent=config.cgroup_parent,
        init_path=config.init_path,
        dns=config.dns,
        dns_search=config.dns_search,
        dns_options=config.dns_options,
        default_shm_size=config.default_shm_size,
        labels=config.labels,
        shutdown_timeout=config.shutdown_timeout,
        debug=config.debug,
        log_config=config.log_config,
        log_chosen=config.log_chosen,
    )
    content = ContentStore(config.root, Contents(db))
    unpacker = Unpacker()
    layers = LayerStore(content, snapshotter, unpacker)
    leases = Leases(LeaseRows(db))
    collector = Collector(content, Contents(db), snapshotter)
    images = ImageStore(Images(db), content, layers, leases, collector)
    volumes = VolumeStore(config.root / "volumes", Volumes(db))
    network = NetworkManager(
        db=db, run=config.run, instance=instance_of(config.root), config=_network(config)
    )
    containers, live, events = Containers(db), LiveSet(), EventBus(_event_log(db, config))
    logs = LogKeeping(settings=settings, keeper=Keeper(), events=events)
    links = Links(settings=settings, containers=containers, network=network)
    sandboxes = Sandboxes(settings=settings, network=network, containers=containers, links=links, live=live)
    devices = Devices(Registry(config.cdi_directories))
    lifecycle = Lifecycle(
        settings=settings,
        containers=containers,
        snapshotter=snapshotter,
        volumes=volumes,
        sandboxes=sandboxes,
        devices=devices,
        runtimes=runtimes,
        logs=logs,
        events=events,
        live=live,
    )
    holds = Holds(volumes, images, snapshotter)
    control = Control(settings=settings, containers=containers, lifecycle=lifecycle, events=events, live=live)
    removal = Removal(
        settings=settings,
        containers=containers,
        snapshotter=snapshotter,
        holds=holds,
        links=links,
        lifecycle=lifecycle,
        control=control,
        logs=logs,
        events=events,
        live=live,
    )
    reconciler = Reconciler(
        settings=settings,
        containers=containers,
        snapshotter=snapshotter,
        volumes=volumes,
        holds=holds,
        network=network,
        runtimes=runtimes,
        lifecycle=lifecycle,
        removal=removal,
        logs=logs,
        events=events,
        live=live,
    )
    container_service = ContainerService(
        settings=settings,
        containers=containers,
        images=images,
        snapshotter=snapshotter,
        holds=holds,
        sandboxes=sandboxes,
        links=links,
        devices=devices,
        events=events,
        live=live,
    )
    groups = ExecGroups()
    execs = ExecService(
        settings=settings, containers=containers, runtimes=runtimes, events=events, live=live, groups=groups
    )
    prober = Prober(settings=settings, runtimes=runtimes, groups=groups)
    health = HealthMonitor(
        containers=containers, live=live, events=events, runner=prober, act=control.end_unhealthy
    )
    lifecycle.on_running += [
        lambda container_id, adopted: health.running(container_id, adopted=adopted),
        lambda container_id, adopted: execs.adopt(container_id) if adopted else None,
    ]
    stats = StatsService(
        settings=settings,
        containers=containers,
        live=live,
        encode=wire_stats.encode,
        encode_stopped=wire_stats.encode_stopped,
    )
    services = Services(
        containers=container_service,
        listing=ListingService(containers=container_service, images=images),
        lifecycle=lifecycle,
        control=control,
        removal=removal,
        update=UpdateService(
            settings=settings,
            containers=containers,
            runtimes=runtimes,
            holds=holds,
            hotplug=Hotplug(holds=holds, volumes=volumes, snapshotter=snapshotter, sandboxes=sandboxes),
            events=events,
            live=live,
        ),
        execs=execs,
        exec_control=ExecControl(settings=settings, containers=containers, execs=execs, groups=groups),
        commit=CommitService(
            settings=settings,
            containers=containers,
            images=images,
            snapshotter=snapshotter,
            events=events,
            live=live,
        ),
        files=FileService(
            settings=settings,
            containers=containers,
            snapshotter=snapshotter,
            volumes=volumes,
            events=events,
            live=live,
        ),
        logs=LogService(settings=settings, containers=containers, live=live, keeper=logs.keeper),
        top=TopService(settings=settings, containers=containers, live=live),
        stats=stats,
        images=ImageService(images=images, unpacker=unpacker, containers=containers, events=events),
        volumes=VolumeService(volumes=volumes, containers=containers, events=events),
        networks=NetworkService(network=network, containers=containers),
        prune=PruneService(containers=container_service, removal=removal, snapshotter=snapshotter),
        system=SystemService(
            settings=settings,
            engine_id=engine_id,
            containers=container_service,
            images=images,
            snapshotter=snapshotter,
            devices=devices,
        ),
        events=events,
    )
    return Daemon(
        config,
        db,
        network,
        lifecycle,
        execs,
        logs,
        prober,
        health,
        stats,
        events,
        reconciler,
        images,
        make_server(services),
    )


def _event_log(db: Database, config: Config) -> EventLog:
    return EventLog(db, keep=config.event_limit, keep_days=config.event_days)


def _give_realtime(config: Config) -> None:
    if not (config.cpu_rt_period or config.cpu_rt_runtime):
        return
    try:
        cgroups.set_realtime(config.cgroup_parent, period=config.cpu_rt_period, runtime=config.cpu_rt_runtime)
    except OSError as e:
        raise Unavailable(f"cannot give real-time scheduling to cgroup {config.cgroup_parent}: {e}") from e


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
        instance = instance_of(config.root)
        network = NetworkManager(db=db, run=config.run, instance=instance, config=_network(config))
        network.start()
        network.teardown_all()
    finally:
        db.close()


def instance_of(root: Path) -> str:
    """A stable name for this root, so that several daemons on one host keep apart."""
    if root == DEFAULT_ROOT:
        return DEFAULT_INSTANCE
    return hashlib.sha256(str(root).encode()).hexdigest()[:8]


def _snapshotter(config: Config, db: Database, meta: Meta) -> Snapshotter:
    """The driver asked for, or the one this root was made with, or the first that works here."""
    wanted = config.storage_driver or meta.get("storage_driver") or ""
    if wanted not in ("", "overlay", "overlay2", "overlayfs", "vfs"):
        raise InvalidArgument(f"unknown storage driver {wanted}: known are overlay and vfs")
    snapshotter: Snapshotter
    if wanted == "vfs":
        snapshotter = VfsSnapshotter(config.root, Snapshots(db, "vfs"))
    else:
        reason = overlay.probe(config.root)
        if reason is None:
            snapshotter = OverlaySnapshotter(config.root, Snapshots(db, "overlay"))
        elif wanted:
            raise Unavailable(f"cannot use storage driver overlay: {reason}")
        else:
            log.warning(
                "using storage driver vfs, which copies every layer: overlay does not work here: %s", reason
            )
            snapshotter = VfsSnapshotter(config.root, Snapshots(db, "vfs"))
    made_with = meta.set_default("storage_driver", snapshotter.name)
    if made_with != snapshotter.name:
        raise InvalidArgument(
            f"cannot use storage driver {snapshotter.name}: {config.root} was made with {made_with}"
        )
    return snapshotter


def _runtimes(config: Config) -> dict[str, Runtime]:
    conmon = find_program(["conmon"])
    if conmon is None:
        raise Unavailable("conmon is not there (package conmon)")
    programs = {name: program for name in _RUNTIMES if (program := find_program([name])) is not None}
    for name, path in config.runtimes.items():
        program = find_program([path])
        if program is None:
            raise Unavailable(f"runtime {name}: {path} is not there")
        programs[name] = program
    if not programs:
        raise Unavailable("no OCI runtime is there (package crun or runc)")
    return {
        name: Runtime(config.run, name=name, program=program, conmon=conmon)
        for name, program in programs.items()
    }


def _network(config: Config) -> NetworkConfig:
    return NetworkConfig(
        bip=config.bip,
        default_address_pools=config.address_pools or DEFAULT_ADDRESS_POOLS,
        mtu=config.mtu,
        icc=config.icc,
        ip_masq=config.ip_masq,
        ip_forward=config.ip_forward,
        host_ip=config.publish_ip or "0.0.0.0",
    )
