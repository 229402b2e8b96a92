"""Requested features that this host's kernel lacks: left out with a warning, or refused, as in Docker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from wherry.errors import InvalidArgument
from wherry.linux import capabilities, cgroups
from wherry.model.container import HostConfig, Resources

Limits = TypeVar("Limits", bound=Resources)

_MISSING = "Your kernel does not support {} or the cgroup is not mounted. {} discarded."
_RATES = (
    ("blkio_device_read_bps", "read_bps_device", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("blkio_device_write_bps", "write_bps_device", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("blkio_device_read_iops", "read_iops_device", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("blkio_device_write_iops", "write_iops_device", "IOPS Block write limit", "Block I/O IOPS write limit"),
)


def discard(host: Limits, parent: str) -> tuple[Limits, list[str]]:
    """Remove the limits that the kernel does not support; there is a warning for each, with Docker's message.

    :param parent: the cgroup in which containers are made.
    """
    warnings: list[str] = []
    left_out: dict[str, Any] = {}
    unified = cgroups.layout().version == 2

    def check(asked: object, controller: str, file: str, what: str, name: str, **empty: Any) -> None:
        if asked and not cgroups.has_file(parent, controller, file):
            warnings.append(_MISSING.format(what, name))
            left_out.update(empty)

    weight = "io.weight" if unified else "blkio.weight"
    weight_device = weight if unified else "blkio.weight_device"
    check(host.blkio_weight, "blkio", weight, "Block I/O weight", "Weight", blkio_weight=0)
    check(
        host.blkio_weight_device,
        "blkio",
        weight_device,
        "Block I/O weight_device",
        "Weight-device",
        blkio_weight_device=None,
    )
    for name, file, what, shown in _RATES:
        path = "io.max" if unified else f"blkio.throttle.{file}"
        check(getattr(host, name), "blkio", path, what, shown, **{name: None})
    pids = host.pids_limit is not None and host.pids_limit > 0
    check(pids, "pids", "pids.max", "PIDs limit capabilities", "PIDs limit", pids_limit=None)
    swap = "memory.swap.max" if unified else "memory.memsw.limit_in_bytes"
    if host.memory and host.memory_swap != -1 and not cgroups.has_file(parent, "memory", swap):
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        left_out["memory_swap"] = -1
    if unified and host.memory_swappiness is not None and host.memory_swappiness >= 0:
        warnings.append(_MISSING.format("memory swappiness capabilities", "Memory swappiness"))
        left_out["memory_swappiness"] = None
    if unified and host.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        left_out["oom_kill_disable"] = None
    elif host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return replace(host, **left_out), warnings


def check(host: HostConfig, parent: str) -> None:
    """:raises InvalidArgument: CPUs, memory nodes, scheduling or priorities that this host does not have."""
    _check_set(host.cpuset_cpus, "cpus", "CPUs", Path("/sys/devices/system/cpu/online"))
    _check_set(host.cpuset_mems, "mems", "memory nodes", Path("/sys/devices/system/node/online"))
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        _check_realtime(host, parent)
    if host.oom_score_adj < own_oom_score() and "CAP_SYS_RESOURCE" not in capabilities.available():
        raise InvalidArgument(
            f"cannot set oom-score-adj to {host.oom_score_adj}: "
            f"this host's daemon may not lower it below {own_oom_score()}"
        )


def _check_realtime(host: HostConfig, parent: str) -> None:
    if not cgroups.has_file(parent, "cpu", "cpu.rt_runtime_us"):
        raise InvalidArgument("Your kernel does not support CPU real-time scheduler")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if host.cpu_realtime_runtime > cgroups.realtime_runtime(parent):
        raise InvalidArgument(
            f"cannot give {host.cpu_realtime_runtime} microseconds of real-time scheduling: cgroup {parent} "
            f"has {cgroups.realtime_runtime(parent)} (daemon flag --cpu-rt-runtime)"
        )


def says_oom_score(wanted: int) -> bool:
    """Whether ``oom_score_adj`` must be set: otherwise a process would inherit the daemon's protection."""
    return bool(wanted) or own_oom_score() < 0


def own_oom_score() -> int:
    try:
        return int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, ValueError):
        return 0


def _check_set(asked: str, name: str, shown: str, online: Path) -> None:
    if not asked:
        return
    try:
        wanted = parse_set(asked)
    except ValueError as e:
        raise InvalidArgument(
            f"Invalid value {asked[:64]} for cpuset {name}: invalid format: {asked[:64]}"
        ) from e
    try:
        text = online.read_text().strip()
    except OSError:
        text = f"0-{(os.cpu_count() or 1) - 1}" if name == "cpus" else "0"
    if not wanted <= parse_set(text):
        raise InvalidArgument(
            f"Requested {shown} are not available - requested {asked[:64]}, available: {text}"
        )


def parse_set(text: str) -> set[int]:
    """``0-2,7`` as numbers (cpuset(7), "List format"). :raises ValueError: malformed or absurd."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends: Sequence[str] = (first, last if dash else first)
        if not all(e.isascii() and e.isdigit() and len(e) <= 5 for e in ends) or int(ends[0]) > int(ends[1]):
            raise ValueError(text)
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return found
