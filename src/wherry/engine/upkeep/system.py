"""Information about the daemon: version, info, disk usage. Every value is read from this host when asked."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wherry import __version__
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.service import ContainerService
from wherry.engine.settings import Settings
from wherry.images.store import ImageStore
from wherry.linux import cgroups, process
from wherry.logs import options as log_options
from wherry.model import oci
from wherry.model.reference import DEFAULT_DOMAIN
from wherry.registry.config import RegistryConfig
from wherry.runtime.task import find_program
from wherry.storage.snapshots import Snapshotter


@dataclass(frozen=True)
class Component:
    name: str
    version: str


@dataclass(frozen=True)
class SystemVersion:
    version: str
    kernel: str
    os: str
    arch: str
    python: str
    components: Sequence[Component]


@dataclass(frozen=True)
class SystemInfo:
    """``memory`` in bytes; ``time_ns`` since the epoch."""

    id: str
    name: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    driver: str
    backing_file_system: str
    root: str
    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    machine: str
    cpus: int
    memory: int
    time_ns: int
    cgroup_version: int
    controllers: frozenset[str]
    default_runtime: str
    runtimes: tuple[str, ...]
    log_driver: str
    log_drivers: tuple[str, ...]
    debug: bool
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    seccomp_profile: str
    no_new_privileges: bool
    file_descriptors: int
    threads: int
    ip_forward: bool
    swap_limit: bool
    init_program: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    cdi_directories: tuple[str, ...]
    cdi_devices: tuple[str, ...]
    hub_mirrors: tuple[str, ...]
    insecure_registries: tuple[str, ...]


class SystemService:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: ContainerService,
        images: ImageStore,
        snapshotter: Snapshotter,
        devices: Devices,
        registries: RegistryConfig,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._images = images
        self._snapshotter = snapshotter
        self._devices = devices
        self._registries = registries

    @property
    def driver(self) -> str:
        """The storage driver's name."""
        return self._snapshotter.name

    @property
    def version_text(self) -> str:
        return __version__

    def version(self) -> SystemVersion:
        programs = (self._settings.default_runtime, "conmon")
        components = [Component(name, _program_version(name)) for name in programs]
        return SystemVersion(
            version=__version__,
            kernel=platform.release(),
            os="linux",
            arch=oci.host().architecture,
            python=platform.python_version(),
            components=components,
        )

    def info(self) -> SystemInfo:
        rows = self._containers.all()
        statuses = [row.state.status for row in rows]
        running = statuses.count("running") + statuses.count("restarting")
        paused = statuses.count("paused")
        layout = cgroups.layout()
        release = _os_release()
        hub = self._registries.rule_for(DEFAULT_DOMAIN)
        return SystemInfo(
            id=self._settings.engine_id,
            name=socket.gethostname(),
            containers=len(rows),
            running=running,
            paused=paused,
            stopped=len(rows) - running - paused,
            images=len(self._images.rows.all()),
            driver=self._snapshotter.name,
            backing_file_system=_file_system(self._settings.root),
            root=str(self._settings.root),
            kernel=platform.release(),
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=oci.host().architecture,
            machine=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            time_ns=time.time_ns(),
            cgroup_version=layout.version,
            controllers=layout.controllers,
            default_runtime=self._settings.default_runtime,
            runtimes=self._settings.runtimes,
            log_driver=self._settings.log_config.type
            if self._settings.log_chosen
            else log_options.DEFAULT_SHOWN,
            log_drivers=log_options.DRIVERS,
            debug=self._settings.debug,
            labels=self._settings.labels,
            warnings=tuple(self._settings.warnings()),
            seccomp_profile=self._settings.security.profile,
            no_new_privileges=self._settings.security.no_new_privileges,
            file_descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            ip_forward=_read("/proc/sys/net/ipv4/ip_forward") == "1",
            swap_limit=_has_swap_limit(layout),
            init_program=Path(self._settings.init_path).name,
            http_proxy=self._registries.proxies.http,
            https_proxy=self._registries.proxies.https,
            no_proxy=",".join(self._registries.proxies.none_for),
            cdi_directories=tuple(str(d) for d in self._devices.registry.directories),
            cdi_devices=tuple(self._devices.registry.names()),
            hub_mirrors=hub.mirrors if hub is not None else (),
            insecure_registries=(
                *self._registries.insecure,
                *(rule.prefix for rule in self._registries.rules if rule.insecure),
            ),
        )


def _has_swap_limit(layout: cgroups.Layout) -> bool:
    if layout.version == 2:
        return "memory" in layout.controllers
    memory = layout.hierarchies.get("memory")
    return memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


@cache
def _program_version(name: str) -> str:
    program = find_program([name])
    if program is None:
        return ""
    try:
        output = process.run([program, "--version"], timeout=5).stdout.decode(errors="replace")
    except process.CommandFailed:
        return ""
    words = output.split()
    return words[2] if len(words) > 2 and words[1] == "version" else (words[1] if len(words) > 1 else "")


@cache
def _file_system(root: Path) -> str:
    device = root.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split(" ")[2] == wanted:
            return line.partition(" - ")[2].split(" ")[0]
    return "unknown"
