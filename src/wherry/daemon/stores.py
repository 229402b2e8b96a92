"""The rooms below the engine, opened on one root: the only place that names concrete drivers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wherry.daemon.config import DEFAULT_ROOT, Config
from wherry.engine.events import EventBus
from wherry.engine.live import LiveSet
from wherry.engine.names import new_engine_id
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument, Unavailable
from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.linux import cgroups
from wherry.linux.plugins import Directories, Plugins
from wherry.network.manager import NetworkManager
from wherry.network.types import DEFAULT_INSTANCE, NetworkConfig
from wherry.registry.distribution import Distribution
from wherry.runtime.task import Runtime, find_program
from wherry.state.containers import Containers
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.events import EventLog
from wherry.state.images import Images
from wherry.state.meta import Meta
from wherry.state.schema import MIGRATIONS
from wherry.state.secrets import Secrets
from wherry.state.snapshots import Snapshots
from wherry.state.volume_snapshots import VolumeSnapshots
from wherry.state.volumes import Volumes
from wherry.storage.content import ContentStore
from wherry.storage.drivers import overlay
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases
from wherry.storage.snapshots import Snapshotter
from wherry.storage.unpack import Unpacker
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore
from wherry.volumes.versions import VolumeVersions

log = logging.getLogger(__name__)

_THREADS = 16
_RUNTIMES = ("crun", "runc")


@dataclass(frozen=True)
class Stores:
    """What the engine's use cases are made of. ``db`` is closed by whoever opened it."""

    settings: Settings
    engine_id: str
    db: Database
    containers: Containers
    images: ImageStore
    distribution: Distribution
    unpacker: Unpacker
    snapshotter: Snapshotter
    volumes: VolumeStore
    volume_versions: VolumeVersions
    volume_snapshots: VolumeSnapshots
    secrets: SecretStore
    network: NetworkManager
    runtimes: dict[str, Runtime]
    events: EventBus
    live: LiveSet


def open_stores(config: Config) -> Stores:
    """Open the root. Must run on the loop's thread.

    :raises Unavailable: the host lacks something without which no container can run; the text names it.
    """
    _make_directories(config)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "worker"))
    for name in cgroups.mount_missing_controllers():
        log.info("mounted the %s controller, without which the OCI runtime does not run here", name)
    _give_realtime(config)
    db = Database(config.root / "wherry.db", MIGRATIONS)
    meta = Meta(db)
    engine_id = meta.set_default("engine_id", new_engine_id())
    snapshotter = _snapshotter(config, db, meta)
    runtimes = _runtimes(config)
    unpacker = Unpacker()
    images = _images(config, db, snapshotter, unpacker)
    plugins = _plugins(config)
    volumes = VolumeStore(config.root / "volumes", Volumes(db), plugins)
    volume_snapshots = VolumeSnapshots(db)
    return Stores(
        settings=_settings(config, runtimes),
        engine_id=engine_id,
        db=db,
        containers=Containers(db),
        images=images,
        distribution=Distribution(config.registry, images.content),
        unpacker=unpacker,
        snapshotter=snapshotter,
        volumes=volumes,
        volume_versions=VolumeVersions(volumes, volume_snapshots),
        volume_snapshots=volume_snapshots,
        secrets=SecretStore(config.root, Secrets(db)),
        network=open_network(config, db, plugins),
        runtimes=runtimes,
        events=EventBus(EventLog(db, keep=config.event_limit, keep_days=config.event_days)),
        live=LiveSet(),
    )


def _plugins(config: Config) -> Plugins:
    places = config.plugin_directories
    directories = Directories(sockets=places, specs=places) if places else Directories()
    return Plugins(directories, timeout=config.plugin_timeout)


def _make_directories(config: Config) -> None:
    # A volume may hold a set-user-ID program of a container's root: nobody else may come as far as to run it
    # (CVE-2021-41091). The socket's directory is passed by whoever may use the socket.
    for directory, mode in ((config.root, 0o710), (config.run, 0o711)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    # Nothing below is for other users, whatever the modes inside layers say.
    private = (config.root / name for name in ("containers", "content", "snapshots"))
    for directory in (*private, config.run / "tasks", config.run / "runtime"):
        directory.mkdir(exist_ok=True, mode=0o700)
        directory.chmod(0o700)


def _settings(config: Config, runtimes: dict[str, Runtime]) -> Settings:
    default_runtime = config.default_runtime or next(iter(runtimes))
    if default_runtime not in runtimes:
        raise InvalidArgument(f"unknown default runtime {default_runtime}: known are {', '.join(runtimes)}")
    return Settings(
        root=config.root,
        run=config.run,
        default_runtime=default_runtime,
        runtimes=tuple(runtimes),
        cgroup_parent=config.cgroup_parent,
        init_path=config.init_path,
        host_gateway_ip=config.host_gateway_ip,
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


def _images(config: Config, db: Database, snapshotter: Snapshotter, unpacker: Unpacker) -> ImageStore:
    content = ContentStore(config.root, Contents(db))
    layers = LayerStore(content, snapshotter, unpacker)
    collector = Collector(content, Contents(db), snapshotter)
    images = ImageStore(Images(db), content, layers, Leases(LeaseRows(db)), collector)
    images.discards = config.discard_blobs
    return images


def _give_realtime(config: Config) -> None:
    if not (config.cpu_rt_period or config.cpu_rt_runtime):
        return
    try:
        cgroups.set_realtime(config.cgroup_parent, period=config.cpu_rt_period, runtime=config.cpu_rt_runtime)
    except OSError as e:
        reason = e if e.filename else e.strerror
        raise Unavailable(
            f"cannot give real-time scheduling to cgroup {config.cgroup_parent}: {reason}"
        ) from e


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


def open_network(config: Config, db: Database, plugins: Plugins | None = None) -> NetworkManager:
    return NetworkManager(
        db=db,
        run=config.run,
        instance=instance_of(config.root),
        config=_network(config),
        plugins=plugins or _plugins(config),
    )


def _network(config: Config) -> NetworkConfig:
    return NetworkConfig(
        bip=config.bip,
        default_address_pools=config.address_pools,
        mtu=config.mtu,
        icc=config.icc,
        ip_masq=config.ip_masq,
        ip_forward=config.ip_forward,
        host_ip=config.publish_ip or "0.0.0.0",
        fixed_cidr=config.fixed_cidr,
        obey_host_firewall=config.publish_firewall == "host",
        host_gateway_ip=config.host_gateway_ip,
        cluster=config.cluster,
    )
