"""``HostConfig``'s limits as OCI ``linux.resources`` and ``rlimits`` (runtime-spec, config-linux.md)."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.linux import capabilities, descriptors
from wherry.model.container import DeviceMapping, HostConfig, ThrottleDevice, Ulimit

_RLIMITS = {
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
}  # fmt: skip
_CPU_PERIOD = 100_000
_MIN_MEMORY = 6 << 20

_DEFAULT_DEVICES: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)
"""null, zero, full, random, urandom, tty, console, ptmx, pts;
and mknod of any device, which does not allow to open it."""


def check(host: HostConfig) -> None:
    """Refuse what no kernel accepts, with Docker's message.

    :raises InvalidArgument: a limit out of its range, or two that contradict each other.
    """
    if host.memory and host.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_reservation and host.memory_reservation < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swap > 0 and host.memory > host.memory_swap:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    cpus = os.cpu_count() or 1
    for other, value in (("CPU Period", host.cpu_period), ("CPU Quota", host.cpu_quota)):
        if host.nano_cpus and value > 0:
            raise InvalidArgument(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if host.nano_cpus and not 0 < host.nano_cpus <= cpus * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if host.cpu_quota and 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for limit in host.ulimits or ():
        _check_ulimit(limit)


def check_weight(host: HostConfig) -> None:
    """Check the block I/O weight that is left after :func:`wherry.runtime.support.discard`: a kernel
    without weights has no range either.

    :raises InvalidArgument: out of range.
    """
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def _check_ulimit(limit: Ulimit) -> None:
    if limit.name not in _RLIMITS:
        raise InvalidArgument(f"invalid ulimit type: {limit.name}")
    if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
        )
    if limit.name == "nofile":
        # for every user: the kernel allows no more, and the container could be made but never started
        most = int(Path("/proc/sys/fs/nr_open").read_text())
        if not 0 <= limit.hard <= most:
            raise InvalidArgument(
                f"cannot set ulimit nofile to {limit.hard}: this kernel's most is {most} (fs.nr_open)"
            )
    if "CAP_SYS_RESOURCE" in capabilities.available():
        return
    own = resource.getrlimit(getattr(resource, f"RLIMIT_{limit.name.upper()}", resource.RLIMIT_NOFILE))[1]
    if own != resource.RLIM_INFINITY and (limit.hard == -1 or limit.hard > own):
        raise InvalidArgument(
            f"cannot set ulimit {limit.name} to {limit.hard}: this host's daemon may not raise it above {own}"
        )


def resources(host: HostConfig) -> dict[str, Any]:
    """``linux.resources`` without devices. It contains only the requested limits."""
    memory = {
        "limit": host.memory or None,
        "swap": host.memory_swap or None,
        "reservation": host.memory_reservation or None,
        "swappiness": None if (host.memory_swappiness or 0) < 0 else host.memory_swappiness,
        "disableOOMKiller": True if host.oom_kill_disable else None,
    }
    if host.memory and not host.memory_swap:
        memory["swap"] = host.memory * 2
    cpu = {
        "shares": host.cpu_shares or None,
        "period": host.cpu_period or None,
        "quota": host.cpu_quota if host.cpu_quota > 0 else None,
        "realtimePeriod": host.cpu_realtime_period or None,
        "realtimeRuntime": host.cpu_realtime_runtime or None,
        "cpus": host.cpuset_cpus or None,
        "mems": host.cpuset_mems or None,
    }
    if host.nano_cpus:
        cpu["period"] = _CPU_PERIOD
        cpu["quota"] = host.nano_cpus * _CPU_PERIOD // 10**9
    out: dict[str, Any] = {"memory": _said(memory), "cpu": _said(cpu), "blockIO": _block_io(host)}
    if host.pids_limit is not None and host.pids_limit > 0:
        out["pids"] = {"limit": host.pids_limit}
    return {k: v for k, v in out.items() if v}


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None}


def _block_io(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    if host.blkio_weight_device:
        out["weightDevice"] = [
            {**_device_number(d.path), "weight": d.weight} for d in host.blkio_weight_device
        ]
    rates: tuple[tuple[str, Sequence[ThrottleDevice] | None], ...] = (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    )
    for name, devices in rates:
        if devices:
            out[name] = [{**_device_number(d.path), "rate": d.rate} for d in devices]
    return out


def _device_number(path: str) -> dict[str, int]:
    try:
        info = os.stat(path)
    except OSError as e:
        raise InvalidArgument(f"cannot use device {path}: {e.strerror}") from e
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


def rlimits(host: HostConfig) -> list[dict[str, Any]]:
    infinity = (1 << 64) - 1
    limits = [
        {
            "type": f"RLIMIT_{limit.name.upper()}",
            "soft": infinity if limit.soft == -1 else limit.soft,
            "hard": infinity if limit.hard == -1 else limit.hard,
        }
        for limit in host.ulimits or ()
    ]
    if not any(limit.name == "nofile" for limit in host.ulimits or ()):
        # The daemon has raised its own limit, and its children inherit it.
        soft, hard = (infinity if n == resource.RLIM_INFINITY else n for n in descriptors.inherited())
        limits.append({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard})
    return limits


def devices(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """``linux.devices`` (nodes to make) and ``linux.resources.devices`` (rules of access).

    :raises InvalidArgument: a missing device, or a malformed rule.
    """
    if host.privileged:
        return _host_devices(), [{"allow": True, "access": "rwm"}]
    rules = [{"allow": False, "access": "rwm"}]
    rules += [_rule(kind, major, minor, access) for kind, major, minor, access in _DEFAULT_DEVICES]
    nodes = []
    for mapping in host.devices or ():
        nodes += mapped(mapping)
        rules += access(mapping)
    rules += [_parse_rule(text) for text in host.device_cgroup_rules or ()]
    return nodes, rules


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    return {**rule, **_said({"major": major, "minor": minor})}


def _parse_rule(text: str) -> dict[str, Any]:
    try:
        kind, numbers, access = text.split(" ")
        major, minor = (None if n == "*" else int(n) for n in numbers.split(":"))
        if kind not in "abc" or set(access) - set("rwm") or not access:
            raise ValueError
    except ValueError as e:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'") from e
    return _rule(kind, major, minor, access)


def access(mapping: DeviceMapping) -> list[dict[str, Any]]:
    """The access rules for a mapped device. :raises InvalidArgument: it does not exist."""
    return [_rule(n["type"], n["major"], n["minor"], mapping.cgroup_permissions) for n in mapped(mapping)]


def mapped(mapping: DeviceMapping) -> list[dict[str, Any]]:
    """A device, or every device of a directory, as nodes to make (runtime-spec ``linux.devices``).

    :raises InvalidArgument: it does not exist, or its permissions are invalid.
    """
    if set(mapping.cgroup_permissions) - set("rwm"):
        raise InvalidArgument(f"invalid device permissions: {mapping.cgroup_permissions}")
    inside = mapping.path_in_container or mapping.path_on_host
    for path in (mapping.path_on_host, inside):
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise InvalidArgument(f"invalid device path {path[:200]!r}: it must be absolute, without ..")
    source = os.path.realpath(mapping.path_on_host)
    if os.path.isdir(source):
        found = [_node(f"{source}/{name}", f"{inside}/{name}") for name in sorted(os.listdir(source))]
    else:
        found = [_node(source, inside)]
    nodes = [node for node in found if node is not None]
    if not nodes:
        reason = "not a device node" if os.path.exists(source) else "no such file or directory"
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{mapping.path_on_host}": '
            f"{reason}"
        )
    return nodes


def _node(path: str, inside: str) -> dict[str, Any] | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _host_devices() -> list[dict[str, Any]]:
    """Every device node in the host's /dev, except those that each container has of its own."""
    skip = {
        "/dev/pts",
        "/dev/shm",
        "/dev/fd",
        "/dev/mqueue",
        "/dev/.lxc",
        "/dev/console",
        "/dev/ptmx",
        "/dev/tty",
    }
    found = []
    for directory, subdirectories, files in os.walk("/dev"):
        subdirectories[:] = sorted(d for d in subdirectories if f"{directory}/{d}" not in skip)
        for name in sorted(files):
            path = f"{directory}/{name}"
            node = None if path in skip else _node(path, path)
            if node is not None:
                found.append(node)
    return found
