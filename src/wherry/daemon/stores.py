"""The rooms below the engine, opened on one root: the only place that names concrete drivers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from wherry import threads
from wherry.daemon.config import Config
from wherry.daemon.database import open_database
from wherry.daemon.defaults import DEFAULT_ROOT
from wherry.engine.containers.names import new_engine_id
from wherry.engine.events import EventBus, caller_name
from wherry.engine.ground import Ground, Stores
from wherry.engine.live import LiveSet
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument, Unavailable
from wherry.images import takeup
from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.linux import cgroups
from wherry.linux.launchspace import LaunchSpace
from wherry.linux.plugins import Directories, Plugins
from wherry.model import oci
from wherry.network import room as network_room
from wherry.network.room import NetworkRoom
from wherry.network.types import DEFAULT_INSTANCE, NO_BRIDGE, Instance, NetworkConfig
from wherry.registry.distribution import Distribution
from wherry.runtime.security import SecurityDefaults
from wherry.runtime.spec import check_seccomp
from wherry.runtime.task import Runtime, find_program
from wherry.state.builds import BuildRows
from wherry.state.containers import Containers
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.events import EventLog
from wherry.state.images import Images
from wherry.state.meta import Meta
from wherry.state.secrets import Secrets
from wherry.state.snapshots import Snapshots
from wherry.state.volume_snapshots import VolumeSnapshots
from wherry.state.volumes import Volumes
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.content import ContentStore
from wherry.storage.drivers import overlay
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore
from wherry.volumes.versions import VolumeVersions

log = logging.getLogger(__name__)

_RUNTIMES = ("crun", "runc")


@dataclass(frozen=True)
class Opened:
    """One open root: the engine is built on this. The code that opened ``db`` closes it."""

    db: Database
    ground: Ground
    stores: Stores


def open_root(config: Config) -> Opened:
    """Must run on the loop's thread.

    :raises Unavailable: the host lacks something that every container needs; the text names it.
    """
    _make_directories(config)
    threads.install(asyncio.get_running_loop())
    for name in cgroups.mount_missing_controllers():
        log.info("mounted the %s controller, without which the OCI runtime does not run here", name)
    _give_realtime(config)
    db = open_database(config.root)
    meta = Meta(db)
    engine_id = meta.set_default("engine_id", new_engine_id())
    snapshotter = _snapshotter(config, db, meta)
    runtimes = _runtimes(config)
    unpacker = Unpacker()
    images = _images(config, db, snapshotter, unpacker)
    plugins = _plugins(config)
    volumes = VolumeStore(config.root / "volumes", Volumes(db), plugins)
    volume_snapshots = VolumeSnapshots(db)
    ground = Ground(
        settings=_settings(config, runtimes, engine_id),
        containers=Containers(db),
        events=EventBus(EventLog(db, keep=config.event_limit, keep_days=config.event_days)),
        live=LiveSet(),
    )
    stores = Stores(
        images=images,
        distribution=Distribution(config.registry, images.content),
        unpacker=unpacker,
        snapshotter=snapshotter,
        volumes=volumes,
        volume_versions=VolumeVersions(volumes, volume_snapshots),
        volume_snapshots=volume_snapshots,
        secrets=SecretStore(config.root, Secrets(db)),
        builds=BuildRows(db),
        network=open_network(config, db, plugins),
        runtimes=runtimes,
        database=db,
    )
    return Opened(db, ground, stores)


def _plugins(config: Config) -> Plugins:
    places = config.plugin_directories
    directories = Directories(sockets=places, specs=places) if places else Directories()
    return Plugins(directories, timeout=config.plugin_timeout)


def _make_directories(config: Config) -> None:
    # A volume may contain a set-user-ID program of a container's root: no other user may reach it and run it
    # (CVE-2021-41091). Users of the socket must pass through the socket's directory.
    for directory, mode in ((config.root, 0o710), (config.run, 0o711)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    # Other users have no access below, whatever the modes inside layers are.
    private = (config.root / name for name in ("containers", "content", "snapshots"))
    for directory in (*private, config.run / "tasks", config.run / "runtime"):
        directory.mkdir(exist_ok=True, mode=0o700)
        directory.chmod(0o700)


def _settings(config: Config, runtimes: dict[str, Runtime], engine_id: str) -> Settings:
    default_runtime = config.default_runtime or next(iter(runtimes))
    if default_runtime not in runtimes:
        raise InvalidArgument(f"unknown default runtime {default_runtime}: known are {', '.join(runtimes)}")
    return Settings(
        root=config.root,
        run=config.run,
        engine_id=engine_id,
        default_runtime=default_runtime,
        runtimes=tuple(runtimes),
        cgroup_parent=config.cgroup_parent,
        init_path=config.init_path,
        host_gateway_ip=config.host_gateway_ip,
        dns=config.dns,
        dns_search=config.dns_search,
        dns_options=config.dns_options,
        default_shm_size=config.default_shm_size,
        default_ipc_mode=config.default_ipc_mode,
        default_cgroupns_mode=config.default_cgroupns_mode,
        default_ulimits=config.default_ulimits,
        init=config.init,
        no_bridge=config.bridge.name == NO_BRIDGE,
        security=_security(config),
        labels=config.labels,
        shutdown_timeout=config.shutdown_timeout,
        debug=config.debug,
        log_config=config.log_config,
        log_chosen=config.log_chosen,
        cdi_directories=config.cdi_directories,
        keep_versions=config.keep_versions,
        image_policy=config.image_policy,
        warnings=lambda: _warnings(config),
    )


def _warnings(config: Config) -> list[str]:
    from wherry.doctor import report  # only ``info`` pays for it

    return report.warnings([config.root, config.run])


def _security(config: Config) -> SecurityDefaults:
    """:raises InvalidArgument: the profile cannot be read, or is invalid."""
    profile = config.seccomp_profile
    if profile not in ("", "unconfined"):
        try:
            profile = Path(profile).read_text()
        except (OSError, UnicodeDecodeError) as e:
            reason = e.strerror if isinstance(e, OSError) else e
            raise InvalidArgument(
                f"opening seccomp profile ({config.seccomp_profile}) failed: {reason}"
            ) from e
        if not profile.strip():
            raise InvalidArgument(f"Decoding seccomp profile failed: {config.seccomp_profile} is empty")
        check_seccomp(profile, oci.host().architecture)
    return SecurityDefaults(profile, config.seccomp_profile or "builtin", config.no_new_privileges)


def _images(config: Config, db: Database, snapshotter: Snapshotter, unpacker: Unpacker) -> ImageStore:
    content = ContentStore(config.root, Contents(db))
    layers = LayerStore(content, snapshotter, unpacker)
    collector = Collector(content, Contents(db), snapshotter)
    images = ImageStore(
        Images(db),
        content,
        layers,
        Leases(LeaseRows(db)),
        collector,
        discards=config.discard_blobs,
        who=caller_name,
    )
    for line in takeup.take_up(images):
        log.info("%s", line)
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
    """The requested driver, or the one this root was made with, or the first that works here."""
    wanted = config.storage_driver or meta.get("storage_driver") or _driver_of_layers(config.root)
    if wanted not in ("", "overlay", "overlay2", "overlayfs", "vfs"):
        raise InvalidArgument(f"unknown storage driver {wanted}: known are overlay and vfs")
    snapshotter: Snapshotter
    if wanted == "vfs":
        snapshotter = VfsSnapshotter(config.root, Snapshots(db, "vfs"))
    else:
        reason = overlay.probe(config.root, again=meta.get("storage_driver") == "overlay")
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


def _driver_of_layers(root: Path) -> str:
    """The driver that has layers here, for a root whose database was lost; empty if none has, or both."""
    places = (root / "snapshots" / name for name in ("overlay", "vfs"))
    found = [place.name for place in places if place.is_dir() and any(place.iterdir())]
    return found[0] if len(found) == 1 else ""


def _runtimes(config: Config) -> dict[str, Runtime]:
    conmon = find_program(["conmon"])
    if conmon is None:
        raise Unavailable("conmon not found; install package conmon")
    programs = {name: program for name in _RUNTIMES if (program := find_program([name])) is not None}
    for name, path in config.runtimes.items():
        program = find_program([path])
        if program is None:
            raise Unavailable(f"runtime {name}: {path} does not exist")
        programs[name] = program
    if not programs:
        raise Unavailable("no OCI runtime is there (package crun or runc)")
    space = LaunchSpace([config.run / "tasks", config.run / "netns"])
    return {
        name: Runtime(
            config.run,
            name=name,
            program=program,
            conmon=conmon,
            # Of other runtimes, more may stay behind than the container, in the namespace they are run in.
            space=space if name in _RUNTIMES and name not in config.runtimes else None,
        )
        for name, program in programs.items()
    }


def open_network(config: Config, db: Database, plugins: Plugins | None = None) -> NetworkRoom:
    return network_room.wire(
        db,
        config.run,
        instance=Instance(instance_of(config.root), str(config.root)),
        config=_network(config),
        plugins=plugins or _plugins(config),
    )


def _network(config: Config) -> NetworkConfig:
    return NetworkConfig(
        bridge=config.bridge.name,
        bip=config.bridge.bip,
        bip6=config.bridge.bip6,
        ipv6=config.bridge.ipv6,
        fixed_cidr=config.bridge.fixed,
        fixed_cidr6=config.bridge.fixed6,
        gateway=config.bridge.gateway,
        gateway6=config.bridge.gateway6,
        network_options=config.network_options,
        default_address_pools=config.address_pools,
        mtu=config.mtu,
        icc=config.icc,
        ip_masq=config.ip_masq,
        ip_forward=config.ip_forward,
        host_ip=config.publish_ip or "0.0.0.0",
        obey_host_firewall=config.publish_firewall == "host",
        host_gateway_ip=config.host_gateway_ip,
        cluster=config.cluster,
    )
