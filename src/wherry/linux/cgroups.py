"""Control groups, versions 1, 2 and both at once (cgroups(7)).

The layouts differ in what is mounted on ``/sys/fs/cgroup``:

    unified   cgroup2 itself
    hybrid    tmpfs with v1 hierarchies, and a cgroup2 tree at ``unified`` that may own some controllers
    legacy    tmpfs with v1 hierarchies only

A cgroup is named by its path below the hierarchies' roots (``/wherry/<id>``). The OCI runtime makes and fills
cgroups; this module reads them, freezes them, and removes what a runtime left behind.
"""

from __future__ import annotations

import errno
import os
import posixpath
import signal
import threading
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wherry.linux import syscalls
from wherry.linux.descriptors import readable
from wherry.model import paths

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Layout:
    """``hierarchies`` maps a v1 controller (or ``name=systemd``) to its mount point; empty when unified."""

    version: int
    hierarchies: dict[str, Path]
    unified: Path | None

    @property
    def controllers(self) -> frozenset[str]:
        if self.version == 1:
            return frozenset(self.hierarchies)
        assert self.unified is not None
        return frozenset((self.unified / "cgroup.controllers").read_text().split())

    def directories(self, path: str) -> Iterator[Path]:
        """The directories of ``path``, one per hierarchy; they may not exist."""
        relative = path.lstrip("/")
        seen = dict.fromkeys(self.hierarchies.values())
        if self.unified is not None:
            seen[self.unified] = None
        for root in seen:
            yield root / relative


def check_parent(text: str) -> str:
    """``--cgroup-parent`` as a path below the hierarchies' roots: ``/a/b``, ``/`` for a root itself.

    The runtime makes the cgroups, not systemd, so ``a-b.slice`` is an ordinary directory name, as with
    Docker's driver ``cgroupfs``.

    :raises InvalidArgument: not a path, or a path that leaves the hierarchy.
    """
    return f"/{paths.relative(text, 'cgroup parent')}"


def child(parent: str, name: str) -> str:
    """The cgroup ``name`` below ``parent``; it never leads out of the hierarchy.

    An older record may have a parent that :func:`check_parent` would refuse. Such a path is taken as relative
    to the root, so that the container can still be removed.
    """
    top = posixpath.normpath(f"/{parent.lstrip('/')}")
    return f"{top.rstrip('/')}/{paths.component(name, 'cgroup')}"


@cache
def layout() -> Layout:
    """The host's layout, read once from ``/proc/self/mounts``."""
    hierarchies: dict[str, Path] = {}
    unified: Path | None = None
    known = _known_controllers()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _source, target, fstype, options = line.split(" ")[:4]
        if fstype == "cgroup2" and (unified is None or Path(target) == ROOT):
            unified = Path(target)
        elif fstype == "cgroup":
            for option in options.split(","):
                if option in known or option.startswith("name="):
                    hierarchies.setdefault(option, Path(target))
    if "memory" in hierarchies or "pids" in hierarchies or unified is None:
        return Layout(1, hierarchies, unified)
    return Layout(2, {}, unified)


def _known_controllers() -> frozenset[str]:
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    return frozenset(line.split("\t")[0] for line in lines if line)


def mount_missing_controllers() -> list[str]:
    """In a hybrid layout, mount the missing controllers under version 1; return their names.

    The OCI runtime refuses to run while the version 2 tree of a hybrid layout owns a controller (typically
    hugetlb). This does what cgroupfs-mount does. A controller that version 2 uses is not available for
    version 1, and stays.

    A hierarchy may also exist without a mount in this mount namespace, because another namespace mounted it.
    Without the mount, the runtime would make directories for its cgroups on the tmpfs, and they would never
    be removed.
    """
    where = layout()
    if where.version != 1 or where.unified is None:
        return []
    mounted = []
    owned = (where.unified / "cgroup.controllers").read_text()
    for name in missing_controllers(where.hierarchies, owned, Path("/proc/self/cgroup").read_text()):
        target = ROOT / name
        try:
            target.mkdir(exist_ok=True)
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
            syscalls.mount("cgroup", str(target), "cgroup", flags, name)
        except OSError:
            try:
                target.rmdir()
            except OSError:
                pass
            continue
        mounted.append(name)
    if mounted:
        layout.cache_clear()
    return mounted


def missing_controllers(mounted: Container[str], owned_by_v2: str, own_cgroups: str) -> list[str]:
    """The controllers to mount under version 1, in the form of mount options.

    :param mounted: the names that are mounted under version 1.
    :param owned_by_v2: ``cgroup.controllers`` of the version 2 tree.
    :param own_cgroups: ``/proc/self/cgroup``, which names every hierarchy that exists (cgroups(7)).
    """
    found = owned_by_v2.split()
    for line in own_cgroups.splitlines():
        _number, controllers, _path = line.split(":", 2)
        # Controllers that are mounted together cannot be mounted separately. A hierarchy without a controller
        # ("name=systemd") is not used by the runtime.
        if controllers and "=" not in controllers and not any(c in mounted for c in controllers.split(",")):
            found.append(controllers)
    return list(dict.fromkeys(found))


def _controller(path: str, name: str) -> Path | None:
    where = layout()
    if where.version == 2:
        assert where.unified is not None
        return where.unified / path.lstrip("/")
    root = where.hierarchies.get(name)
    return None if root is None else root / path.lstrip("/")


_easing = threading.Lock()


def ease_attach() -> None:
    """Let the kernel's wait before a change of cgroup begin now, in parallel with other work.

    Moving a process to a cgroup takes a lock. After a pause, the first holder waits for an RCU grace period
    (8 to 16 ms measured); holders in the next milliseconds do not. Writing this process's pid to its
    own cgroup changes nothing, but takes the lock. Blocks for the grace period; a concurrent call returns at
    once, as does a call on a host that forbids the write.
    """
    if not _easing.acquire(blocking=False):
        return
    try:
        own = _own_directory()
        if own is not None:
            (own / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        pass
    finally:
        _easing.release()


def _own_directory() -> Path | None:
    """This process's cgroup in a mounted hierarchy: version 1's pids, or version 2."""
    where = layout()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if where.version == 2 and not controllers and where.unified is not None:
            return where.unified / path.lstrip("/")
        if where.version == 1 and "pids" in controllers.split(",") and "pids" in where.hierarchies:
            return where.hierarchies["pids"] / path.lstrip("/")
    return None


def processes(path: str) -> list[int]:
    """Pids of every process in the cgroup and below it; empty if the cgroup is gone."""
    top = _controller(path, "pids") or _controller(path, "memory")
    found: list[int] = []
    if top is None:
        return found
    for directory, _subdirectories, _files in os.walk(top):
        try:
            text = (Path(directory) / "cgroup.procs").read_text()
        except OSError:
            continue
        found += [int(pid) for pid in text.split()]
    return sorted(set(found))


def freeze(path: str) -> None:
    """Freeze every process of the cgroup. :raises OSError: the cgroup is gone, or the host has no freezer."""
    _set_frozen(path, frozen=True)


def thaw(path: str) -> None:
    """Let the processes run again."""
    _set_frozen(path, frozen=False)


def _set_frozen(path: str, *, frozen: bool) -> None:
    directory = _controller(path, "freezer")
    if directory is None:
        raise OSError(errno.ENOSYS, "the freezer controller is not mounted")
    if layout().version == 2:
        (directory / "cgroup.freeze").write_text("1" if frozen else "0")
    else:
        (directory / "freezer.state").write_text("FROZEN" if frozen else "THAWED")


def is_frozen(path: str) -> bool:
    """Whether the cgroup itself is frozen or freezing; False if only a cgroup above it is."""
    directory = _controller(path, "freezer")
    if directory is None:
        return False
    try:
        if layout().version == 2:
            return (directory / "cgroup.freeze").read_text().strip() == "1"
        # Reading freezer.state makes the kernel visit every process, under a lock of all cgroups.
        return (directory / "freezer.self_freezing").read_text().strip() == "1"
    except OSError:
        return False


def kill(path: str, *, patience: float = 5.0) -> int:
    """SIGKILL every process of the cgroup and below, including new forks; returns how many there were.

    Blocks until they are gone. :raises TimeoutError: some still exist after ``patience`` seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while pids := processes(path):
        if is_frozen(path):
            thaw(path)  # a frozen process receives no signal (version 1)
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                readable(fd, min(deadline - time.monotonic(), 1.0))
            except ProcessLookupError:
                pass
            finally:
                os.close(fd)
            killed.add(pid)
        if time.monotonic() > deadline and processes(path):
            raise TimeoutError(errno.ETIMEDOUT, "processes do not end", path)
    return len(killed)


def has_file(parent: str, controller: str, name: str) -> bool:
    """Whether a cgroup below ``parent`` will have the file; the root of a hierarchy may not have it.

    Creates ``parent`` if it does not exist, as the runtime would.
    """
    directory = _controller(parent, controller)
    if directory is None:
        return False
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return (directory / name).exists()


def realtime_runtime(path: str) -> int:
    """The microseconds of real-time CPU time per period that a cgroup's processes may use (version 1
    only)."""
    directory = _controller(path, "cpu")
    try:
        return int((directory / "cpu.rt_runtime_us").read_text()) if directory is not None else 0
    except (OSError, ValueError):
        return 0


def set_realtime(path: str, *, period: int, runtime: int) -> None:
    """Set a cgroup's real-time budget, in microseconds; 0 leaves a value unchanged.

    :raises OSError: the kernel does not support it, or the cgroup above has less.
    """
    directory = _controller(path, "cpu")
    if directory is None:
        raise FileNotFoundError(errno.ENOENT, "no cpu controller", path)
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in (("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime)):
        if value:
            if not (directory / name).exists():
                raise OSError(errno.EOPNOTSUPP, "this kernel has no real-time group scheduling")
            (directory / name).write_text(str(value))


def unlimit_cpu(path: str) -> None:
    """Lift the limit on CPU time. :raises OSError: the cgroup is gone."""
    directory = _controller(path, "cpu")
    if directory is None:
        return
    if layout().version == 1:
        (directory / "cpu.cfs_quota_us").write_text("-1")
        return
    period = (directory / "cpu.max").read_text().split()[-1]
    (directory / "cpu.max").write_text(f"max {period}")


def unlimit_pids(path: str) -> None:
    """Lift the limit on processes. :raises OSError: the cgroup is gone."""
    directory = _controller(path, "pids")
    if directory is not None:
        (directory / "pids.max").write_text("max")


def remove(path: str) -> None:
    """Remove the cgroup and its children from every hierarchy. It must contain no process.

    :raises OSError: EBUSY while a process is left in it.
    """
    for top in layout().directories(path):
        _remove_below(str(top))


def _remove_below(directory: str) -> None:
    """Remove one directory of a cgroup. Most have no children: they are not read before."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as e:
        if e.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        for below, _subdirectories, _files in os.walk(directory, topdown=False):
            with suppress(FileNotFoundError):
                os.rmdir(below)
