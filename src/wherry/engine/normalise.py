"""A create request made whole: image defaults merged, engine defaults filled in, the impossible refused."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from msgspec.structs import replace

from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.linux import cgroups, mounts
from wherry.linux.signals import parse_signal
from wherry.logs import options as log_options
from wherry.model.container import ContainerConfig, EndpointRequest, HostConfig, RestartPolicy
from wherry.model.oci import Healthcheck, ImageRunConfig
from wherry.runtime import limits, support
from wherry.runtime.spec import MASKED_PATHS, READONLY_PATHS, capability_set, parse_security_options

_HOSTNAME_MAX = 64
_RESTART = {"", "no", "always", "unless-stopped", "on-failure"}
_HEALTH_MIN = 10**6
"""Nanoseconds: no interval or timeout is shorter."""
_HEALTH_ACTIONS = {"", "none", "restart", "stop", "kill"}
_CGROUPNS = {"", "host", "private"}
_ENV_KEY = re.compile(r"[^=\0]+")


def merge_image(config: ContainerConfig, image: ImageRunConfig) -> ContainerConfig:
    """Fill what the request leaves open from the image's configuration, as Docker does.

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
        env=merged_env,
        cmd=cmd or None,
        entrypoint=entrypoint or None,
        working_dir=config.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(config.labels or {})},
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=_merge_healthcheck(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
        on_build=None,
    )


def _merge_healthcheck(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """What the request leaves open is the image's; what follows a failure is the request's alone to say."""
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
    """:raises InvalidArgument: what cannot run, in Docker's words."""
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
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument("invalid stop timeout: it must be -1 or more seconds")
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


def check_port(text: str) -> tuple[int, int, str]:
    """``80``, ``80/udp`` or ``8000-8010/tcp`` as (first, last, protocol).

    :raises InvalidArgument: out of range, or an unknown protocol.
    """
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    try:
        low = decimal(first)
        high = decimal(last) if dash else low
    except ValueError as e:
        raise InvalidArgument(f"invalid port specification: {text!r}") from e
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    if (protocol or "tcp") not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    return low, high, protocol or "tcp"


def decimal(text: str) -> int:
    """Digits only, where ``int`` would take signs, blanks and other scripts' digits.

    :raises ValueError: anything else.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def check_host(host: HostConfig, settings: Settings, warnings: list[str]) -> HostConfig:
    """Defaults for the host's half. What this kernel cannot do is left out and said in ``warnings``.

    :raises InvalidArgument: values no kernel takes. :raises NotImplemented_: features by name.
    """
    _refuse_missing(host, settings)
    limits.check(host)
    parent = host.cgroup_parent or settings.cgroup_parent
    support.check(host, parent)
    host, left_out = support.discard(host, parent)
    warnings += left_out
    capability_set(host)
    parse_security_options(host.security_opt or (), privileged=host.privileged)
    check_restart(host)
    _check_modes(host)
    masked = host.masked_paths
    readonly = host.readonly_paths
    if host.privileged:
        masked = masked or []
        readonly = readonly or []
    return replace(
        host,
        network_mode=host.network_mode if host.network_mode not in ("", "default") else "bridge",
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("host" if cgroups.layout().version == 1 else "private"),
        shm_size=host.shm_size or settings.default_shm_size,
        restart_policy=replace(host.restart_policy, name=host.restart_policy.name or "no"),
        log_config=log_options.resolve(host.log_config, settings.log_config),
        runtime=host.runtime or settings.default_runtime,
        masked_paths=list(MASKED_PATHS) if masked is None else masked,
        readonly_paths=list(READONLY_PATHS) if readonly is None else readonly,
        memory_swap=host.memory * 2 if host.memory and not host.memory_swap else host.memory_swap,
    )


def check_restart(host: HostConfig) -> None:
    """:raises InvalidArgument: a policy that is none, in Docker's words."""
    policy: RestartPolicy = host.restart_policy
    if policy.name not in _RESTART:
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_modes(host: HostConfig) -> None:
    if host.ipc_mode not in ("", "private", "shareable", "host", "none") and not _joins(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "host") and not _joins(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in _CGROUPNS:
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid user namespace mode: {host.userns_mode}")
    joins_network = _joins(host.network_mode)
    if joins_network and (host.port_bindings or host.publish_all_ports):
        raise InvalidArgument("conflicting options: port publishing and the container type network mode")
    if joins_network and (host.dns or host.extra_hosts):
        raise InvalidArgument("conflicting options: dns or hosts and the container type network mode")


def _joins(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _refuse_missing(host: HostConfig, settings: Settings) -> None:
    missing: Sequence[tuple[object, str]] = ((host.cgroup, "Cgroup"),)
    for value, name in missing:
        if value:
            raise NotImplemented_(f"{name} is not implemented yet")
    _check_storage(host, settings)
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation {host.isolation!r} on linux")
    if host.runtime and host.runtime not in settings.runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")


def _check_storage(host: HostConfig, settings: Settings) -> None:
    """``--storage-opt size`` needs a quota for one directory tree, which few mounts have."""
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


def networks(
    mode: str, requested: dict[str, EndpointRequest | None], mac_address: str
) -> dict[str, EndpointRequest]:
    """The networks a container joins, by the name the request used; that of its mode first.

    :raises InvalidArgument: wishes that contradict each other, in Docker's words.
    """
    if mode in ("host", "none") or mode.startswith("container:"):
        others = [n for n in requested if n not in (mode, "default")]
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
    for name, request in wanted.items():
        if name in ("host", "none") or _joins(name):
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        if name == "bridge":
            check_default_bridge(request)
    return wanted


def check_default_bridge(request: EndpointRequest) -> None:
    """:raises InvalidArgument: wishes that only networks of one's own meet."""
    address = request.ipam_config
    if address is not None and (address.ipv4_address or address.ipv6_address):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if request.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
