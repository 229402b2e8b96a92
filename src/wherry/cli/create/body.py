"""The body of ``POST /containers/create`` (Engine API, ``ContainerCreateRequest``)."""

from __future__ import annotations

import os
import posixpath

from wherry.cli.command import Failure
from wherry.cli.create import mounts, networks, ports, security
from wherry.client.files import read_file
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

POLICIES = ("no", "always", "on-failure", "unless-stopped")


def build(options: Options, image: str, command: Sequence[str]) -> Object:
    """The API's members for all flags.

    :raises InvalidArgument: options that are malformed or contradict each other, in Docker's words.
    """
    _fold_old_names(options)
    _refuse_windows(options)
    swappiness = options.number("memory-swappiness")
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidArgument(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    binds, anonymous = mounts.split_volumes(options.many("volume"))
    bindings = ports.parse(options.many("publish"))
    mode, endpoints = networks.endpoints(options)
    body = _config(options, image, command)
    body["Volumes"] = {path: {} for path in anonymous}
    body["ExposedPorts"] = {p: {} for p in [*bindings, *ports.exposed(options.many("expose"))]}
    body["HostConfig"] = _host_config(options)
    body["HostConfig"] |= {"Binds": binds or None, "PortBindings": bindings, "NetworkMode": mode}
    body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    if options.on("rm") and body["HostConfig"]["RestartPolicy"]["Name"] not in ("", "no"):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    return body


def _refuse_windows(options: Options) -> None:
    for name in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"):
        if options.given(name):
            raise Failure(
                f'"--{name}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux"
            )


def _fold_old_names(options: Options) -> None:
    """``--net`` and ``--net-alias`` are the old names of ``--network`` and ``--network-alias``."""
    for old, new in (("net", "network"), ("net-alias", "network-alias"), ("dns-opt", "dns-option")):
        if options.given(old):
            options.extend(new, options.get(old))


def _config(options: Options, image: str, command: Sequence[str]) -> Object:
    attach = options.many("attach")
    stdin = options.on("interactive")
    config: Object = {
        "Hostname": options.text("hostname"),
        "Domainname": options.text("domainname"),
        "User": options.text("user"),
        "AttachStdin": stdin or "stdin" in attach,
        "AttachStdout": not attach or "stdout" in attach,
        "AttachStderr": not attach or "stderr" in attach,
        "Tty": options.on("tty"),
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "Env": environment(options.many("env-file"), options.many("env")),
        "Cmd": list(command) or None,
        "Image": image,
        "WorkingDir": options.text("workdir"),
        "Entrypoint": _entrypoint(options),
        "Labels": labels(options.many("label-file"), options.pairs("label")),
    }
    if options.given("stop-signal"):
        config["StopSignal"] = options.text("stop-signal")
    if options.given("stop-timeout"):
        config["StopTimeout"] = options.number("stop-timeout")
    if healthcheck := _healthcheck(options):
        config["Healthcheck"] = healthcheck
    return config


def _entrypoint(options: Options) -> list[str] | None:
    """``--entrypoint=`` (empty) removes the image's entrypoint."""
    return [options.text("entrypoint")] if options.given("entrypoint") else None


def environment(files: Sequence[str], given: Sequence[str]) -> list[str]:
    """Variables from files, then from flags; a name without a value gets this client's value.

    If it is not set here, it is left out if it came from a file. If it came from a flag, the bare name is
    sent, which removes the image's value.

    :raises InvalidArgument: a file that cannot be read, or a malformed line in it.
    """
    resolved: list[str] = []
    for path in files:
        for line in _lines(path):
            name = line.partition("=")[0]
            if not name:
                raise InvalidArgument(f"invalid env file ({path}): no variable name on line '{line}'")
            if name != name.strip() or any(c.isspace() for c in name):
                raise InvalidArgument(f"invalid env file ({path}): variable '{name}' contains whitespaces")
            if "=" in line or line in os.environ:
                resolved.append(_with_value(line))
    return resolved + [_with_value(variable) for variable in given]


def _with_value(variable: str) -> str:
    if "=" in variable or variable not in os.environ:
        return variable
    return f"{variable}={os.environ[variable]}"


def labels(files: Sequence[str], given: dict[str, str]) -> dict[str, str]:
    """Labels from files, then from flags."""
    found: dict[str, str] = {}
    for path in files:
        for line in _lines(path):
            key, _, value = line.partition("=")
            if not key or any(c.isspace() for c in key):
                raise InvalidArgument(f"invalid env file ({path}): variable '{key}' contains whitespaces")
            found[key] = value
    return found | given


def _lines(path: str) -> list[str]:
    """The lines of a file that are neither empty nor comments, without a byte order mark."""
    try:
        raw = read_file(path)
    except OSError as e:
        raise InvalidArgument(f"open {path}: {(e.strerror or '').lower()}") from e
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InvalidArgument(
            f"invalid env file ({path}): invalid utf8 bytes at line {raw[: e.start].count(10) + 1}"
        ) from e
    stripped = (line.lstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in stripped if line and not line.startswith("#")]


def _healthcheck(options: Options) -> Object:
    names = ("interval", "timeout", "start-period", "start-interval")
    durations = {name: options.number(f"health-{name}") for name in names}
    retries, command = options.number("health-retries"), options.text("health-cmd")
    on_failure = options.text("health-on-failure")
    said = bool(command or retries or on_failure or any(durations.values()))
    if options.on("no-healthcheck"):
        if said:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    for name, value in durations.items():
        if value < 0:
            raise InvalidArgument(f"--health-{name} cannot be negative")
    if retries < 0:
        raise InvalidArgument("--health-retries cannot be negative")
    if not said:
        return {}
    members = ("Interval", "Timeout", "StartPeriod", "StartInterval")
    check: Object = {m: v for m, v in zip(members, durations.values(), strict=True) if v}
    if command:
        check["Test"] = ["CMD-SHELL", command]
    if retries:
        check["Retries"] = retries
    if on_failure:
        check["OnFailure"] = on_failure
    return check


def _host_config(options: Options) -> Object:
    sent, masked, readonly = security.parse(options.many("security-opt"))
    host: Object = {
        "ContainerIDFile": options.text("cidfile"),
        "AutoRemove": options.on("rm"),
        "Privileged": options.on("privileged"),
        "PublishAllPorts": options.on("publish-all"),
        "ReadonlyRootfs": options.on("read-only"),
        "RestartPolicy": restart_policy(options.text("restart")),
        "LogConfig": _log_config(options),
        "CapAdd": capabilities(options.many("cap-add")) or None,
        "CapDrop": capabilities(options.many("cap-drop")) or None,
        "GroupAdd": options.many("group-add") or None,
        "Dns": options.many("dns"),
        "DnsOptions": options.many("dns-option"),
        "DnsSearch": options.many("dns-search"),
        "ExtraHosts": options.many("add-host") or None,
        "Links": options.many("link") or None,
        "SecurityOpt": sent or None,
        "StorageOpt": _storage_opt(options) or None,
        "Sysctls": options.pairs("sysctl") or None,
        "Annotations": options.pairs("annotation") or None,
        "Tmpfs": mounts.tmpfs(options.many("tmpfs")) or None,
        "Mounts": options.get("mount") or None,
        "Secrets": options.get("secret") or None,
        "VolumesFrom": options.many("volumes-from") or None,
        "VolumeDriver": options.text("volume-driver"),
        "ShmSize": options.number("shm-size"),
        "Runtime": options.text("runtime"),
        "Isolation": options.text("isolation"),
    }
    host |= _namespaces(options) | _resources(options)
    if masked is not None:
        host |= {"MaskedPaths": masked, "ReadonlyPaths": readonly}
    if options.given("init"):
        host["Init"] = options.on("init")
    return host


def capabilities(names: Sequence[str]) -> list[str]:
    """Names in the form ``CAP_NET_ADMIN`` (or ``ALL``), sorted, without duplicates."""
    upper = {name.strip().upper() for name in names}
    return sorted(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper)


def _namespaces(options: Options) -> Object:
    """:raises InvalidArgument: an unknown mode."""
    pid, uts, userns = options.text("pid"), options.text("uts"), options.text("userns")
    cgroupns = options.text("cgroupns")
    container, _, name = pid.partition(":")
    if pid not in ("", "host", "private") and not (container == "container" and name):
        raise InvalidArgument("--pid: invalid PID mode")
    if uts not in ("", "host"):
        raise InvalidArgument("--uts: invalid UTS mode")
    if userns not in ("", "host") and not userns.startswith("auto"):
        raise InvalidArgument("--userns: invalid USER mode")
    if cgroupns not in ("", "host", "private"):
        raise InvalidArgument("--cgroupns: invalid CGROUP mode")
    return {
        "PidMode": pid,
        "UTSMode": uts,
        "UsernsMode": userns,
        "CgroupnsMode": cgroupns,
        "IpcMode": options.text("ipc"),
        "CgroupParent": options.text("cgroup-parent"),
    }


def _resources(options: Options) -> Object:
    numbers = {
        "CpuShares": "cpu-shares",
        "Memory": "memory",
        "NanoCpus": "cpus",
        "BlkioWeight": "blkio-weight",
        "CpuPeriod": "cpu-period",
        "CpuQuota": "cpu-quota",
        "CpuRealtimePeriod": "cpu-rt-period",
        "CpuRealtimeRuntime": "cpu-rt-runtime",
        "KernelMemory": "kernel-memory",
        "MemoryReservation": "memory-reservation",
        "MemorySwap": "memory-swap",
        "MemorySwappiness": "memory-swappiness",
        "OomScoreAdj": "oom-score-adj",
    }
    lists = {
        "BlkioWeightDevice": "blkio-weight-device",
        "BlkioDeviceReadBps": "device-read-bps",
        "BlkioDeviceWriteBps": "device-write-bps",
        "BlkioDeviceReadIOps": "device-read-iops",
        "BlkioDeviceWriteIOps": "device-write-iops",
        "DeviceCgroupRules": "device-cgroup-rule",
    }
    resources: Object = {member: options.number(flag) for member, flag in numbers.items()}
    resources |= {member: options.get(flag) for member, flag in lists.items()}
    limits = {limit["Name"]: limit for limit in options.get("ulimit")}
    resources["Ulimits"] = [limits[name] for name in sorted(limits)]
    devices, requests = _devices(options.many("device"))
    return resources | {
        "CpusetCpus": options.text("cpuset-cpus"),
        "CpusetMems": options.text("cpuset-mems"),
        "OomKillDisable": options.on("oom-kill-disable"),
        "PidsLimit": options.number("pids-limit"),
        "Devices": devices,
        "DeviceRequests": (options.get("gpus") + requests) or None,
    }


def _devices(specs: Sequence[str]) -> tuple[list[Object], list[Object]]:
    """Device paths as mappings; CDI names (``vendor.com/class=name``) as device requests."""
    devices: list[Object] = []
    cdi: list[str] = []
    for spec in specs:
        if not spec.startswith("/") and "/" in spec.partition("=")[0] and "=" in spec:
            cdi.append(spec)
        else:
            devices.append(device(spec))
    return devices, [{"Driver": "cdi", "DeviceIDs": cdi}] if cdi else []


def device(spec: str) -> Object:
    """``/dev/host[:/dev/inside][:rwm]``"""
    parts = spec.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"bad format for path: {spec}")
    inside, access = parts[0], "rwm"
    if len(parts) == 3:
        inside, access = parts[1], parts[2]
    elif len(parts) == 2 and set(parts[1]) <= set("rwm"):
        access = parts[1]
    elif len(parts) == 2:
        inside = parts[1]
    if not set(access) <= set("rwm") or len(set(access)) != len(access):
        raise InvalidArgument(f"bad mode specified: {access}")
    for path in (parts[0], inside):
        if not posixpath.isabs(path):
            raise InvalidArgument(f"{path} is not an absolute path")
    return {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": access}


def restart_policy(text: str) -> Object:
    """``no``, ``always``, ``unless-stopped``, ``on-failure[:max]``.

    :raises InvalidArgument: a malformed count; the daemon decides about the name.
    """
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidArgument("invalid restart policy format: no policy provided before colon")
    if count and not (count.isascii() and count.removeprefix("-").isdecimal()):
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count) if count else 0}


def _log_config(options: Options) -> Object:
    driver = options.text("log-driver")
    settings = dict(one.partition("=")[::2] for one in options.many("log-opt"))
    if driver == "none" and settings:
        raise InvalidArgument("invalid logging opts for driver none")
    return {"Type": driver, "Config": settings}


def _storage_opt(options: Options) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in options.many("storage-opt"):
        key, equals, value = one.partition("=")
        if not equals:
            raise InvalidArgument("invalid storage option")
        found[key] = value
    return found
