"""Containers as the Engine API describes them: configuration and state.

Units are Docker's: memory in bytes, ``nano_cpus`` in 1e-9 CPUs, health intervals in nanoseconds, stop
timeouts in seconds. ``None`` means "not set": the engine or the image decides.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from wherry.model.base import Value
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, Healthcheck

Empty = dict[str, Any]


class ContainerConfig(Value, frozen=True, kw_only=True):
    """The portable half of the configuration: what runs, independent of the host (API
    ``ContainerConfig``)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RestartPolicy(Value, frozen=True, kw_only=True):
    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Value, frozen=True, kw_only=True):
    type: str = ""
    config: dict[str, str] | None = None


class PortBinding(Value, frozen=True, kw_only=True):
    """``host_port`` is a port, a range ``8000-8010`` to choose from, or empty for any.

    ``sources`` is an addition: the subnets that may connect; empty: all.
    """

    host_ip: str = ""
    host_port: str = ""
    sources: list[str] | msgspec.UnsetType = msgspec.UNSET


class DeviceMapping(Value, frozen=True, kw_only=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class DeviceRequest(Value, frozen=True, kw_only=True):
    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = msgspec.field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Value, frozen=True, kw_only=True):
    name: str = ""
    soft: int = 0
    hard: int = 0


class WeightDevice(Value, frozen=True, kw_only=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Value, frozen=True, kw_only=True):
    path: str = ""
    rate: int = 0


class DriverConfig(Value, frozen=True, kw_only=True):
    name: str = ""
    options: dict[str, str] | None = None


class BindOptions(Value, frozen=True, kw_only=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Value, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Value, frozen=True, kw_only=True):
    """``size_bytes`` 0 is unlimited; ``mode`` are permission bits."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(Value, frozen=True, kw_only=True):
    subpath: str = ""


class MountSpec(Value, frozen=True, kw_only=True):
    """A mount as a user asks for it with ``--mount`` (API ``Mount``).

    ``owner`` is an addition of this engine: ``match`` swaps the owner of the source and the container's user
    on the mount.
    """

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    owner: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class SecretUse(Value, frozen=True, kw_only=True):
    """A secret that is mounted in a container. An addition of this engine: Docker's secrets need a swarm.

    ``target`` is a path, below ``/run/secrets`` unless it is absolute, by default the secret's name; the
    default owner is the container's user; ``mode`` are permission bits, 0444 by default.
    """

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    target: str = ""
    uid: int | None = msgspec.field(default=None, name="UID")
    gid: int | None = msgspec.field(default=None, name="GID")
    mode: int | None = None


class Resources(Value, frozen=True, kw_only=True):
    """Limits and devices (API ``Resources``); zero and empty mean "not said".

    The last four are for Windows: they are stored and shown, and a warning says that they have no effect.
    """

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")


class HostConfig(Resources, frozen=True, kw_only=True):
    """The host's half of the configuration: limits, mounts, networks, privileges (API ``HostConfig``)."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[MountSpec] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | str | None = None
    cap_drop: list[str] | str | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None
    secrets: list[SecretUse] | None = None


class ContainerUpdate(Resources, frozen=True, kw_only=True):
    """``POST /containers/{id}/update``: fields that are set replace the current values.

    The members after ``restart_policy`` are additions of this engine: they change a container's mounts,
    devices and published ports while it runs. ``mounts_remove`` names destinations, ``devices_remove`` paths
    inside the container, ``publish_remove`` ``[address:]host-port[/protocol]``.
    """

    restart_policy: RestartPolicy | None = None
    mounts_add: list[MountSpec] | None = None
    mounts_remove: list[str] | None = None
    devices_add: list[DeviceMapping] | None = None
    devices_remove: list[str] | None = None
    publish_add: dict[str, list[PortBinding] | None] | None = None
    publish_remove: list[str] | None = None


class EndpointIpamConfig(Value, frozen=True, kw_only=True):
    ipv4_address: str = msgspec.field(default="", name="IPv4Address")
    ipv6_address: str = msgspec.field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointRequest(Value, frozen=True, kw_only=True):
    """What a user requests for a container's endpoint on one network (API
    ``EndpointSettings``, input half)."""

    ipam_config: EndpointIpamConfig | None = msgspec.field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(Value, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointRequest | None] | None = None


Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


class HealthResult(Value, frozen=True, kw_only=True):
    """One run of a health check. Times are nanoseconds since the epoch; exit code -1: the run was aborted."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class Health(Value, frozen=True, kw_only=True):
    """The results of health checks: ``log`` has the last five, oldest first.

    ``restarts`` counts consecutive restarts by ``on_failure``.
    """

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()
    restarts: int = 0


class ContainerState(Value, frozen=True, kw_only=True):
    """The state of a container. Times are nanoseconds since the epoch, 0 for never.

    ``health`` is from its last change of status or streak. ``comes_back``: ``on_failure`` caused the exit,
    and a start follows, whatever the restart policy says.
    """

    status: Status = "created"
    pid: int = 0
    conmon_pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    manually_stopped: bool = False
    health: Health | None = None
    comes_back: bool = False


class MountPoint(Value, frozen=True, kw_only=True):
    """A mount as resolved at creation: binds parsed, volumes named (API ``MountPoint`` and more).

    ``source`` is the host path of a bind, an image's reference, empty for tmpfs; ``name`` the volume's when
    it was mounted, or that of the view of the image. ``volume_id`` never changes; old records do not have it.
    ``labels`` and ``driver_options`` are for a volume to be made. ``copy_up``: at the first start, the
    image's content at ``destination`` is copied into an empty volume. ``image_id`` and ``image_platform`` are
    what an image's reference meant when it was mounted.
    """

    type: str
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(default=True, name="RW")
    propagation: str = ""
    copy_up: bool = False
    anonymous: bool = False
    subpath: str = ""
    recursive: bool = True
    options: list[str] = msgspec.field(default_factory=list)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    driver_options: dict[str, str] = msgspec.field(default_factory=dict)
    volume_id: str = ""
    owner: str = ""
    image_id: str = ""
    image_platform: str = ""

    @property
    def volume(self) -> str:
        """The id of the volume."""
        return self.volume_id or self.name


class Container(Value, frozen=True, kw_only=True):
    """A container's immutable record; what changes is in :class:`ContainerState` and the row's name.

    ``image_id`` is the digest of the image's target, ``chain_id`` the snapshot below its writable layer
    (``None`` for an image without layers). ``path`` and ``args`` are the command after entrypoint and image
    defaults are merged; ``links`` ids of linked containers by their aliases.
    ``image_manifest`` is the manifest of its platform; old records do not have it.
    ``log_chosen`` is false if neither the request nor the administrator chose a log driver.
    """

    id: str
    created: int
    image_ref: str
    image_id: Digest
    chain_id: Digest | None
    platform: str
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    networks: dict[str, EndpointRequest]
    mounts: list[MountPoint]
    storage_driver: str
    links: dict[str, str] = msgspec.field(default_factory=dict)
    log_chosen: bool = True
    image_manifest: Descriptor | None = None
