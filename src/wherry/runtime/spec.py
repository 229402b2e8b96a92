"""A container as an OCI runtime specification (runtime-spec 1.0.2, config.md), with Docker's defaults."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.linux import capabilities, seccomp, seccomp_bpf
from wherry.linux.users import User
from wherry.model import typed
from wherry.model.container import HostConfig
from wherry.runtime import limits, support
from wherry.runtime.cdi import Injection
from wherry.runtime.security import SecurityOptions

MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SHM_SIZE = 64 << 20
_BPF_ANNOTATION = "run.oci.seccomp_bpf_data"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class OciMount:
    """One entry of ``mounts``; the order matters: a later one may lie within an earlier one."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Namespaces:
    """Per namespace: ``""`` for a new one, ``"host"`` to stay in the daemon's, else a path to join."""

    network: str
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    cgroup: str = "host"


@dataclass(frozen=True)
class Process:
    """What is executed (runtime-spec ``process``)."""

    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: User
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    oom_score_adj: int = 0


@dataclass(frozen=True)
class SpecRequest:
    hostname: str
    domainname: str
    rootfs: str
    process: Process
    host: HostConfig
    namespaces: Namespaces
    cgroup_path: str
    security: SecurityOptions
    architecture: str
    mounts: Sequence[OciMount] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    has_shm: bool = False
    devices: Injection = field(default_factory=Injection)


def capability_set(host: HostConfig) -> tuple[str, ...]:
    """:raises InvalidArgument: see :func:`wherry.linux.capabilities.effective`."""
    return capabilities.effective(_words(host.cap_add), _words(host.cap_drop), privileged=host.privileged)


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def process_section(
    process: Process, *, caps: Sequence[str], rlimits: list[dict[str, Any]], no_new_privileges: bool
) -> dict[str, Any]:
    """``process`` alone: part of a container's spec, and the whole of an exec's.

    As in Docker, every user has the capabilities in the permitted and the effective set until the command is
    executed. At that moment the kernel takes them from a user other than root, except those of the command's
    file. With ``no-new-privileges`` it keeps only those that were permitted before (capabilities(7)). The
    inheritable set is always empty (CVE-2022-29162), and so is the ambient one.
    """
    section: dict[str, Any] = {
        "terminal": process.terminal,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": list(process.user.groups),
        },
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": list(caps),
            "effective": list(caps),
            "permitted": list(caps),
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": no_new_privileges,
    }
    if rlimits:
        section["rlimits"] = rlimits
    if support.says_oom_score(process.oom_score_adj):
        section["oomScoreAdj"] = process.oom_score_adj
    if process.terminal and any(process.console_size):
        height, width = process.console_size
        section["consoleSize"] = {"height": height, "width": width}
    return section


def build(request: SpecRequest) -> bytes:
    """The whole ``config.json``.

    :raises InvalidArgument: a device, capability or profile that is not available.
    """
    host = request.host
    caps = capability_set(host)
    nodes, device_rules = limits.devices(host)
    nodes += request.devices.nodes
    if not host.privileged:
        device_rules += request.devices.rules
    linux: dict[str, Any] = {
        "cgroupsPath": request.cgroup_path,
        "namespaces": _namespaces(request.namespaces),
        "resources": {**limits.resources(host), "devices": device_rules},
        "devices": nodes,
        "sysctl": request.sysctls,
        "rootfsPropagation": _root_propagation(request.mounts),
    }
    if not request.security.unmask:
        masked, readonly = ([], []) if host.privileged else (MASKED_PATHS, READONLY_PATHS)
        linux["maskedPaths"] = masked if host.masked_paths is None else host.masked_paths
        linux["readonlyPaths"] = readonly if host.readonly_paths is None else host.readonly_paths
    profile = _seccomp(request.security.seccomp, caps, request.architecture)
    annotations = {**request.annotations, **(host.annotations or {})}
    if profile is not None:
        # crun uses the program and ignores the section; other runtimes use the section.
        linux["seccomp"] = profile.section
        if profile.program:
            annotations[_BPF_ANNOTATION] = profile.program
    process = process_section(
        request.process,
        caps=caps,
        rlimits=limits.rlimits(host),
        no_new_privileges=request.security.no_new_privileges,
    )
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": request.rootfs, "readonly": host.readonly_rootfs},
        "mounts": [_mount(m) for m in _all_mounts(request)],
        "annotations": annotations,
        "linux": linux,
    }
    if request.devices.hooks:
        spec["hooks"] = request.devices.hooks
    if request.namespaces.uts != "host":
        spec["hostname"] = request.hostname
        if request.domainname:
            linux["sysctl"] = {**linux["sysctl"], "kernel.domainname": request.domainname}
    return msgspec.json.encode(spec)


def _mount(mount: OciMount) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _all_mounts(request: SpecRequest) -> list[OciMount]:
    host = request.host
    privileged = host.privileged
    shm = host.shm_size or SHM_SIZE
    cgroup_mode = "rw" if privileged or request.security.writable_cgroups else "ro"
    defaults = [
        OciMount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        OciMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        OciMount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        OciMount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "rw" if privileged else "ro")),
        OciMount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            (cgroup_mode, "nosuid", "noexec", "nodev", "relatime"),
        ),
        OciMount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ]
    if request.namespaces.ipc == "host" and os.path.isdir("/dev/mqueue"):
        defaults[-1] = OciMount("/dev/mqueue", "bind", "/dev/mqueue", ("rbind", "nosuid", "noexec", "nodev"))
    if not request.has_shm:
        options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={shm}")
        defaults.append(OciMount("/dev/shm", "tmpfs", "shm", options))
    taken = {m.destination for m in request.mounts}
    kept = [m for m in defaults if m.destination not in taken]
    # A volume at /dev or /proc replaces the default mount, and must come before the mounts within it.
    mounts = sorted(request.mounts, key=lambda m: m.destination.rstrip("/").count("/"))
    return kept + mounts


def _root_propagation(mounts: Sequence[OciMount]) -> str:
    options = {option for m in mounts for option in m.options}
    if options & {"shared", "rshared"}:
        return "shared"
    return "rslave" if options & {"slave", "rslave"} else "private"


def _namespaces(wanted: Namespaces) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = [{"type": "mount"}]
    kinds = (
        ("network", wanted.network),
        ("ipc", wanted.ipc),
        ("pid", wanted.pid),
        ("uts", wanted.uts),
        ("cgroup", wanted.cgroup),
    )
    for kind, value in kinds:
        if value == "":
            listed.append({"type": kind})
        elif value != "host":
            listed.append({"type": kind, "path": value})
    return listed


def _seccomp(value: str, caps: Sequence[str], architecture: str) -> _Filter | None:
    return None if value == "unconfined" else _filter(value, tuple(caps), architecture)


@dataclass(frozen=True)
class _Filter:
    """A profile as ``linux.seccomp``, and compiled (base64) if possible."""

    section: msgspec.Raw
    program: str


@lru_cache(maxsize=64)
def _filter(value: str, caps: tuple[str, ...], architecture: str) -> _Filter:
    try:
        profile = (
            seccomp.from_docker_profile(typed.from_json(value, dict[str, Any]), caps, architecture)
            if value
            else seccomp.default_profile(caps, architecture)
        )
        program = seccomp_bpf.compile_profile(profile)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as e:
        raise InvalidArgument(f"Decoding seccomp profile failed: {e}") from e
    encoded = base64.b64encode(program).decode() if program else ""
    return _Filter(msgspec.Raw(msgspec.json.encode(profile)), encoded)


def check_seccomp(profile: str, architecture: str) -> None:
    """:raises InvalidArgument: not a valid seccomp profile."""
    _filter(profile, (), architecture)


def warm_up(architecture: str) -> None:
    """Compile the default filter before the first container needs it (some 30 ms)."""
    _filter("", capabilities.effective((), (), privileged=False), architecture)
