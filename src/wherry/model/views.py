"""The values that inspects and lists return: rows joined with the in-memory state."""

from __future__ import annotations

from dataclasses import dataclass, field

from wherry.model.container import Container, ContainerState, EndpointRequest, MountPoint


@dataclass(frozen=True)
class PortView:
    """A port as published (``host_port`` set) or merely exposed."""

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int | None = None


@dataclass(frozen=True)
class EndpointView:
    """A container's endpoint on one network; addresses are empty while it does not run."""

    network_name: str
    network_id: str
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    prefix_length: int = 0
    gateway6: str = ""
    ip6_address: str = ""
    prefix_length6: int = 0
    mac_address: str = ""
    dns_names: tuple[str, ...] = ()
    request: EndpointRequest = field(default_factory=EndpointRequest)


@dataclass(frozen=True)
class ContainerView:
    name: str
    record: Container
    state: ContainerState
    endpoints: tuple[EndpointView, ...] = ()
    ports: tuple[PortView, ...] = ()
    exec_ids: tuple[str, ...] = ()
    image_name: str = ""
    directory: str = ""
    log_path: str = ""
    sandbox_key: str = ""
    size_rw: int | None = None
    size_root_fs: int | None = None
    runtime: str = ""
    mounts: tuple[MountPoint, ...] = ()
    link_names: tuple[str, ...] = ()
    links: list[str] | None = None
    log_driver: str = ""


@dataclass(frozen=True)
class ExecView:
    """An exec session. ``exit_code`` is ``None`` until it has ended."""

    id: str
    container_id: str
    running: bool
    exit_code: int | None
    pid: int
    tty: bool
    open_stdin: bool
    open_stdout: bool
    open_stderr: bool
    entrypoint: str
    arguments: tuple[str, ...]
    user: str
    privileged: bool
    detach_keys: str
    can_remove: bool = False


@dataclass(frozen=True)
class ExecListing:
    """An exec as a list shows it. ``processes`` counts all its processes that still run.

    ``user`` is the container's if the exec did not name one.
    """

    view: ExecView
    user: str
    started_at: int
    processes: int
