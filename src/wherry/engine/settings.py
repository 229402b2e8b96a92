"""What the daemon was told, as the engine needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wherry.model.container import LogConfig, Ulimit


@dataclass(frozen=True)
class Settings:
    """``root`` and ``run`` as in the architecture's "On disk"; the rest are defaults for containers."""

    root: Path
    run: Path
    default_runtime: str = "crun"
    runtimes: tuple[str, ...] = ("crun",)
    cgroup_parent: str = "/wherry"
    init_path: str = "/usr/bin/tini-static"
    host_gateway_ip: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    default_shm_size: int = 64 << 20
    default_ulimits: tuple[Ulimit, ...] = ()
    labels: tuple[str, ...] = ()
    shutdown_timeout: int = 15
    debug: bool = False
    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="local"))
    log_chosen: bool = False
    insecure: bool = False
    warnings: tuple[str, ...] = field(default=())

    def container_directory(self, container_id: str) -> Path:
        """``<root>/containers/<id>``: the log and the files bound into ``/etc``."""
        return self.root / "containers" / container_id

    def log_path(self, container_id: str) -> Path:
        return self.container_directory(container_id) / f"{container_id}.log"

    def json_log_path(self, container_id: str) -> Path:
        return self.container_directory(container_id) / f"{container_id}-json.log"

    def task_directory(self, container_id: str) -> Path:
        return self.run / "tasks" / container_id
