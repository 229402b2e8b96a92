"""What is read from the host: files of /proc and /sys, programs, sockets. Nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wherry.errors import WherryError
from wherry.linux import cgroups, linkprobe, mounts, process, syscalls
from wherry.linux.nft import Nft
from wherry.network.firewall import foreign_drops

_VERSION = re.compile(rb"(\d+)\.(\d+)(?:\.(\d+))?")


PROGRAMS = ("conmon", "crun", "runc", "git", "mmdebstrap")


@dataclass(frozen=True)
class Program:
    """``version``: as numbers, empty if the program does not say."""

    path: str
    version: tuple[int, ...] = ()


@dataclass(frozen=True)
class FreeRoom:
    """A directory's file system. Bytes and inodes that are free, and all there are; 0 inodes: not counted."""

    path: str
    kind: str
    free: int
    size: int
    free_inodes: int = 0
    inodes: int = 0


@dataclass(frozen=True)
class HostFacts:
    """``links``: kinds of network interfaces, and whether the kernel can make them. ``drops``: chains of
    others that drop forwarded packets by default. ``protocols``: whether /etc/protocols is there.
    ``nameservers``: of /etc/resolv.conf. ``files``: the hard limit of open files."""

    root_user: bool = True
    kernel: tuple[int, ...] = ()
    filesystems: frozenset[str] = frozenset()
    cgroup_version: int = 2
    controllers: frozenset[str] = frozenset()
    seccomp: bool = True
    apparmor: bool = True
    user_namespaces: bool = True
    links: Mapping[str, bool] = field(default_factory=dict)
    nft_error: str = ""
    protocols: bool = True
    drops: Sequence[str] = ()
    nameservers: Sequence[str] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)
    rooms: Sequence[FreeRoom] = ()
    clock_synchronised: bool = True
    files: int = 1 << 20
    threads: int = 1 << 20
    selinux_enforcing: bool = False


def gather(directories: Sequence[Path], runtimes: Sequence[str] = (), *, quick: bool = False) -> HostFacts:
    """Look at the host.

    :param directories: where the daemon keeps its state, which need not exist yet.
    :param quick: start no program, and make no interface: what only these tell is taken to be in order.
    """
    error, drops = _nft()
    layout = cgroups.layout()
    return HostFacts(
        root_user=os.geteuid() == 0,
        kernel=_numbers(platform.release().encode()),
        filesystems=frozenset(line.split()[-1] for line in _lines("/proc/filesystems")),
        cgroup_version=layout.version,
        controllers=layout.controllers,
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        apparmor=_text("/sys/module/apparmor/parameters/enabled") == "Y",
        user_namespaces=os.path.exists("/proc/self/ns/user")
        and _text("/proc/sys/user/max_user_namespaces") != "0",
        links={} if quick else _links(),
        nft_error=error,
        protocols=os.path.exists("/etc/protocols"),
        drops=drops,
        nameservers=[
            line.split()[1] for line in _lines("/etc/resolv.conf") if line.startswith("nameserver ")
        ],
        programs={
            name: found
            for name in (*PROGRAMS, *runtimes)
            if (found := Program(name) if quick else _program(name)) is not None
        },
        rooms=[_room(path) for path in directories],
        clock_synchronised=_clock(),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        threads=int(_text("/proc/sys/kernel/threads-max") or 0),
        selinux_enforcing=_text("/sys/fs/selinux/enforce") == "1",
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _lines(path: str) -> list[str]:
    return [line for line in _text(path).splitlines() if line.strip()]


def _numbers(text: bytes) -> tuple[int, ...]:
    found = _VERSION.search(text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def _program(name: str) -> Program | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = process.run([path, "--version"], timeout=10, check=False)
    except process.CommandFailed:
        return Program(path)
    return Program(path, _numbers(done.stdout + done.stderr))


def _nft() -> tuple[str, list[str]]:
    """Why nftables cannot be used, if it cannot; and the chains of others that drop."""
    try:
        nft = Nft()
    except (WherryError, OSError) as e:
        return (e.message if isinstance(e, WherryError) else str(e)), []
    try:
        return "", foreign_drops(nft)
    except (WherryError, OSError) as e:
        return (e.message if isinstance(e, WherryError) else str(e)), []
    finally:
        nft.close()


def _links() -> dict[str, bool]:
    try:
        return linkprobe.kinds()
    except (OSError, WherryError):
        return {}


def _room(path: Path) -> FreeRoom:
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    found = os.statvfs(place)
    return FreeRoom(
        str(path),
        mounts.mount_of(place).type,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail,
        found.f_files,
    )


def _clock() -> bool:
    try:
        return syscalls.clock_synchronised()
    except OSError:
        return True  # nothing is known
