"""The daemon's configuration, in the form the engine needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from wherry.images.policy import ImageUpkeepPolicy
from wherry.images.versions import Keep
from wherry.model import paths
from wherry.model.container import LogConfig, Ulimit
from wherry.runtime.security import SecurityDefaults


@dataclass(frozen=True)
class Settings:
    """``root`` and ``run`` as in docs/architecture.md, "On disk"; ``engine_id`` identifies the root; the rest
    are defaults for containers and rules for images."""

    root: Path
    run: Path
    engine_id: str = ""
    default_runtime: str = "crun"
    runtimes: tuple[str, ...] = ("crun",)
    cgroup_parent: str = "/wherry"
    init_path: str = "/usr/bin/tini-static"
    host_gateway_ip: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    default_shm_size: int = 64 << 20
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    init: bool = False
    no_bridge: bool = False
    security: SecurityDefaults = field(default_factory=SecurityDefaults)
    default_ulimits: tuple[Ulimit, ...] = ()
    labels: tuple[str, ...] = ()
    shutdown_timeout: int = 15
    debug: bool = False
    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="local"))
    log_chosen: bool = False
    cdi_directories: tuple[Path, ...] = ()
    keep_versions: Keep = field(default_factory=Keep)
    image_policy: ImageUpkeepPolicy = field(default_factory=ImageUpkeepPolicy)
    insecure: bool = False
    warnings: Callable[[], Sequence[str]] = tuple
    """What is wrong with the host, a line each; asked by ``info``."""

    def container_directory(self, container_id: str) -> Path:
        """``<root>/containers/<id>``: the log and the files bound into ``/etc``."""
        return _place(self.root, "containers", container_id)

    def log_path(self, container_id: str) -> Path:
        return self.container_directory(container_id) / f"{container_id}.log"

    def json_log_path(self, container_id: str) -> Path:
        return self.container_directory(container_id) / f"{container_id}-json.log"

    def mark(self, task: Path) -> None:
        """Record that a task belongs to this daemon."""
        (task / "owner").write_text(f"{self.root}\n")

    def is_strange(self, task: Path) -> bool:
        """Whether a task belongs to another daemon."""
        try:
            return (task / "owner").read_text().strip() != str(self.root)
        except OSError:
            return False

    def task_directory(self, container_id: str) -> Path:
        return _place(self.run, "tasks", container_id)


@lru_cache(4096)
def _place(top: Path, kind: str, container_id: str) -> Path:
    """A start asks for it twenty times, a list once for each container."""
    return paths.below(top / kind, container_id, what="container id")
