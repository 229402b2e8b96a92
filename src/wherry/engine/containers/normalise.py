"""Complete a create request: merge the image's defaults and the engine's, and refuse what is impossible."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from wherry.engine.settings import Settings
from wherry.errors import Conflict, InvalidArgument, NotImplemented_
from wherry.linux import cgroups, mounts
from wherry.logs import options as log_options
from wherry.model.container import ContainerConfig, EndpointRequest, HostConfig, RestartPolicy
from wherry.model.oci import Healthcheck, ImageRunConfig
from wherry.model.ports import check_port
from wherry.model.signals import parse_signal
from wherry.runtime import limits, support
from wherry.runtime.security import parse_security_options
from wherry.runtime.spec import MASKED_PATHS, READONLY_PATHS, capability_set

_HOSTNAME_MAX = 64
_RESTART = {"", "no", "always", "unless-stopped", "on-failure"}
_HEALTH_MIN = 10**6
"""Nanoseconds: the shortest interval or timeout."""
_HEALTH_ACTIONS = {"", "none", "restart", "stop", "kill"}
_CGROUPNS = {"", "host", "private"}
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_@:+-]+)+")
_ENV_KEY = re.compile(r"[^=\0]+")


def merge_image(config: ContainerConfig, image: ImageRunConfig) -> ContainerConfig:
    """Fill in what the request leaves out from the image's configuration, as Docker does.

    A request with an entrypoint ignores the image's command; an entrypoint of one empty string clears the
    image's.
    """
    entrypoint, cmd = as_list(config.entrypoint), as_list(config.cmd)
    if not entrypoint:
        if not cmd:
            cmd = list(image.cmd or ())
        if config.entrypoint is None:
            entrypoint = list(image.entrypoint or ())
    if entrypoint == [""]:
        entrypoint = []
    env = list(config.env or ())
    named = {e.partition("=")[0] for e in env}
    merged_env = env + [e for e in image.env or () if e.partition("=")[0] not in named]
    return replace(
        config,
        user=config.user or image.user,
        exposed_ports={**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None,
        volumes=config.volumes or None,
        env=merged_env,
        cmd=cmd or ([] if config.cmd == [] else None),
        entrypoint=entrypoint or ([] if config.entrypoint == [] else None),
        working_dir=config.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(config.labels or {})},
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=_merge_healthcheck(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
        on_build=None,
    )


def _merge_healthcheck(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """Fill in what the request leaves out from the image.
    The action on failure comes from the request only."""
    if image is not None:
        image = replace(image, on_failure="")
    if own is None or image is None:
        return own or image
    return replace(
        own,
        test=own.test or image.test,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )


def as_list(value: list[str] | str | None) -> list[str]:
    """Commands may come as one string (API, "strslice")."""
    if isinstance(value, str):
        return [value]
    return list(value or ())


def check_config(config: ContainerConfig) -> ContainerConfig:
    """:raises InvalidArgument: with Docker's message, if it cannot run."""
    if not as_list(config.entrypoint) and not as_list(config.cmd):
        raise InvalidArgument("no command specified")
    words = (*as_list(config.entrypoint), *as_list(config.cmd), *(config.env or ()), config.working_dir)
    if any("\0" in word for word in words):
        raise InvalidArgument(
            "invalid container configuration: a NUL byte in command, environment or workdir"
        )
    if len(config.hostname) > _HOSTNAME_MAX or (
        config.hostname and not re.fullmatch(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?", config.hostname)
    ):
        raise InvalidArgument(f"invalid hostname: {config.hostname[:80]!r}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for entry in config.env or ():
        if not _ENV_KEY.match(entry):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for port in config.exposed_ports or {}:
        check_port(port)
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    return replace(config, working_dir=posixpath.normpath(config.working_dir) if config.working_dir else "")


def _check_health(health: Healthcheck) -> None:
    durations = (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    )
    for name, value in durations:
        if value != 0 and value < _HEALTH_MIN:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    test = health.test or ["NONE"]
    if test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f"Unknown healthcheck type '{test[0]}' (expected 'CMD')")
    if test[0] != "NONE" and not any(test[1:]):
        raise InvalidArgument(f"invalid health check: {test[0]} needs a command")
    if any("\0" in word for word in test):
        raise InvalidArgument("invalid health check: a NUL byte in its command")
    if health.on_failure not in _HEALTH_ACTIONS:
        raise InvalidArgument(
            f"invalid OnFailure in Healthcheck: '{health.on_failure}' (none, restart, stop or kill)"
        )


def check_host(host: HostConfig, settings: Settings, warnings: list[str]) -> HostConfig:
    """Fill in defaults of the host configuration. What this kernel cannot do is left out, with a warning in
    ``warnings``.

    :raises InvalidArgument: values that no kernel accepts. :raises NotImplemented_: a feature, by name.
    """
    _refuse_missing(host, settings)
    limits.check(host)
    parent = cgroups.check_parent(host.cgroup_parent or settings.cgroup_parent)
    support.check(host, parent)
    host, left_out = support.discard(host, parent)
    limits.check_weight(host)
    warnings += left_out
    capability_set(host)
    parse_security_options(host.security_opt or (), privileged=host.privileged)
    check_restart(host)
    _check_modes(host)
    _check_sysctls(host)
    check_extra_hosts(host.extra_hosts or ())
    masked, readonly = host.masked_paths, host.readonly_paths
    if not host.privileged:
        masked = list(MASKED_PATHS) if masked is None else masked
        readonly = list(READONLY_PATHS) if readonly is None else readonly
    v1 = cgroups.layout().version == 1
    return replace(
        host,
        network_mode=_network_mode(host, settings, warnings),
        ipc_mode=host.ipc_mode or settings.default_ipc_mode,
        cgroupns_mode=host.cgroupns_mode or _cgroupns(host, settings, v1=v1),
        shm_size=host.shm_size or settings.default_shm_size,
        restart_policy=replace(host.restart_policy, name=host.restart_policy.name or "no"),
        log_config=log_options.resolve(host.log_config, settings.log_config),
        runtime=host.runtime or settings.default_runtime,
        masked_paths=masked,
        readonly_paths=readonly,
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable) if v1 else None,
        pids_limit=host.pids_limit if (host.pids_limit or 0) > 0 else None,
        memory_swap=host.memory * 2 if host.memory and not host.memory_swap else host.memory_swap,
    )


def _cgroupns(host: HostConfig, settings: Settings, *, v1: bool) -> str:
    """The default cgroup namespace: the host's for a privileged container, as with Docker."""
    if host.privileged:
        return "host"
    return settings.default_cgroupns_mode or ("host" if v1 else "private")


def windows_only(host: HostConfig) -> list[str]:
    """Warnings about limits that only Windows containers have."""
    asked = {
        "CpuCount": host.cpu_count,
        "CpuPercent": host.cpu_percent,
        "IOMaximumIOps": host.io_maximum_iops,
        "IOMaximumBandwidth": host.io_maximum_bandwidth,
    }
    return [f"{name} is for Windows containers and has no effect" for name, value in asked.items() if value]


def check_restart(host: HostConfig) -> None:
    """:raises InvalidArgument: an invalid policy, with Docker's message."""
    policy: RestartPolicy = host.restart_policy
    if policy.name not in _RESTART:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise Conflict("can't create 'AutoRemove' container with restart policy")


def _check_modes(host: HostConfig) -> None:
    if host.ipc_mode not in ("", "private", "shareable", "host", "none") and not _joins(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "host") and not _joins(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.network_mode.startswith("container:") and not _joins(host.network_mode):
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if host.cgroupns_mode not in _CGROUPNS:
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid user namespace mode: {host.userns_mode}")


def check_network_mode(asked: ContainerConfig, host: HostConfig) -> None:
    """Check options against a network mode that uses another namespace. Only what the request itself says
    counts: ports that the image exposes are not the user's wish.

    :param asked: the request's own options. :raises InvalidArgument: options that contradict each other, with
        Docker's message.
    """
    if any(not key for key in host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    joins, shares = _joins(host.network_mode), host.network_mode == "host"
    published = host.port_bindings or host.publish_all_ports
    undefined = "can't be used with links. This would result in undefined behavior"
    for given, reason in (
        (joins and asked.hostname, "hostname and the network mode"),
        (joins and host.links, f"container type network {undefined}"),
        (joins and host.dns, "dns and the network mode"),
        (joins and host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        ((joins or shares) and asked.mac_address, "mac-address and the network mode"),
        (joins and published, "port publishing and the container type network mode"),
        (joins and asked.exposed_ports, "port exposing and the container type network mode"),
        (host.uts_mode == "host" and asked.hostname, "hostname and the UTS mode"),
        (shares and host.links, f"host type networking {undefined}"),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {reason}")


def _check_sysctls(host: HostConfig) -> None:
    """Check the names: the runtime turns them into paths below ``/proc/sys``. Which of them may be set
    depends on the namespaces, and is decided when the container starts.
    """
    for name, value in (host.sysctls or {}).items():
        if not _SYSCTL.fullmatch(name) or "\0" in value:
            raise InvalidArgument(f"sysctl '{name[:200]}' is not allowed")


def check_extra_hosts(entries: Sequence[str]) -> None:
    """:raises InvalidArgument: not ``name:address``, with Docker's message."""
    for entry in entries:
        name, separator, address = entry.partition(":")
        if not separator or not name:
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
        try:
            if address != "host-gateway":
                ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError as e:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from e


def _joins(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _refuse_missing(host: HostConfig, settings: Settings) -> None:
    missing: Sequence[tuple[object, str]] = ((host.cgroup, "Cgroup"),)
    for value, name in missing:
        if value:
            raise NotImplemented_(f"{name} is not implemented yet")
    _check_storage(host, settings)
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.runtime and host.runtime not in settings.runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")


def _check_storage(host: HostConfig, settings: Settings) -> None:
    """``--storage-opt size`` needs a quota for one directory tree; few mounts support that."""
    for key in host.storage_opt or {}:
        if key != "size":
            raise InvalidArgument(f"unknown storage option {key!r}: known is size")
    if host.storage_opt:
        entry = mounts.mount_of(settings.root)
        if not {"prjquota", "pquota"} & set(entry.options.split(",")):
            raise InvalidArgument(
                f"--storage-opt size is not supported: {entry.type} on {entry.target} "
                "is mounted without project quotas"
            )
        raise NotImplemented_("--storage-opt size is not implemented yet")


def _network_mode(host: HostConfig, settings: Settings, warnings: list[str]) -> str:
    """If the daemon has no default bridge, a container that asks for it gets only a loopback interface."""
    mode = "bridge" if host.network_mode in ("", "default") else host.network_mode
    if mode != "bridge" or not settings.no_bridge:
        return mode
    if host.port_bindings or host.publish_all_ports:
        warnings.append("No port is published: this daemon has no default bridge (bridge=none).")
    return "none"


def networks(
    mode: str, requested: dict[str, EndpointRequest | None], mac_address: str, *, no_bridge: bool = False
) -> dict[str, EndpointRequest]:
    """The networks a container joins, by the name the request used; the network of its mode comes first.

    :param no_bridge: there is no default bridge: a request for it means no network.

    :raises InvalidArgument: options that contradict each other, with Docker's message.
    """
    if mode in ("host", "none") or mode.startswith("container:"):
        missing = "bridge" if mode == "none" and no_bridge else ""
        others = [n for n in requested if n not in (mode, "default", missing)]
        if others:
            raise InvalidArgument(f"conflicting options: cannot attach {mode} and network {others[0]}")
        return {} if mode.startswith("container:") else {mode: requested.get(mode) or EndpointRequest()}
    wanted = {
        name if name != "default" else "bridge": r or EndpointRequest() for name, r in requested.items()
    }
    first = wanted.pop(mode, EndpointRequest())
    if mac_address and not first.mac_address:
        first = replace(first, mac_address=mac_address)
    wanted = {mode: first, **wanted}
    for name in wanted:
        if name in ("host", "none") or _joins(name):
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
    return wanted
