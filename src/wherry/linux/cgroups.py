"""Control groups, versions 1, 2 and both at once (cgroups(7)).

Layouts, told apart by what is mounted on ``/sys/fs/cgroup``:

    unified   cgroup2 itself
    hybrid    tmpfs with v1 hierarchies, and a cgroup2 tree at ``unified`` that may own some controllers
    legacy    tmpfs with v1 hierarchies only

A cgroup is named by its path below the hierarchies' roots (``/wherry/<id>``). The OCI runtime makes and
fills them; this module reads them, freezes them, and removes what a runtime left behind.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wherry.linux import syscalls

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
        """Where ``path`` may exist, once per hierarchy."""
        relative = path.lstrip("/")
        seen = dict.fromkeys(self.hierarchies.values())
        if self.unified is not None:
            seen[self.unified] = None
        for root in seen:
            yield root / relative


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
    """In a hybrid layout, mount under version 1 what the version 2 tree still owns; return the names.

    The OCI runtime refuses to run while the version 2 tree of a hybrid layout owns a controller (hugetlb,
    typically). This does what cgroupfs-mount does. A controller that version 2 uses cannot be had and stays.
    """
    where = layout()
    if where.version != 1 or where.unified is None:
        return []
    mounted = []
    for name in (where.unified / "cgroup.controllers").read_text().split():
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


def _controller(path: str, name: str) -> Path | None:
    where = layout()
    if where.version == 2:
        assert where.unified is not None
        return where.unified / path.lstrip("/")
    root = where.hierarchies.get(name)
    return None if root is None else root / path.lstrip("/")


_easing = threading.Lock()


def ease_attach() -> None:
    """Have the kernel's wait before a change of cgroup begin now, beside other work.

    Putting a process into a cgroup takes a lock whose first holder after a pause waits for an RCU grace
    period (8 to 16 ms measured); whoever follows within some milliseconds does not. Writing this process
    into the cgroup it is in changes nothing and takes that lock. Blocks for the grace period; a call beside
    another returns at once, and so does one on a host that does not allow it.
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
    """This process's cgroup in a hierarchy that is mounted: version 1's pids, or version 2."""
    where = layout()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if where.version == 2 and not controllers and where.unified is not None:
            return where.unified / path.lstrip("/")
        if where.version == 1 and "pids" in controllers.split(",") and "pids" in where.hierarchies:
            return where.hierarchies["pids"] / path.lstrip("/")
    return None


def processes(path: str) -> list[int]:
    """Pids of every process in the cgroup and below it; empty when it is gone."""
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
    """Stop every process of the cgroup. :raises OSError: it is gone, or the host has no freezer."""
    _set_frozen(path, frozen=True)


def thaw(path: str) -> None:
    """Let them run again."""
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
    directory = _controller(path, "freezer")
    if directory is None:
        return False
    try:
        if layout().version == 2:
            return (directory / "cgroup.freeze").read_text().strip() == "1"
        return (directory / "freezer.state").read_text().strip() in ("FROZEN", "FREEZING")
    except OSError:
        return False


def kill(path: str, *, patience: float = 5.0) -> int:
    """SIGKILL every process of the cgroup and below, also what they fork meanwhile; how many there were.

    Blocks until they are gone. :raises TimeoutError: some stayed for ``patience`` seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while pids := processes(path):
        if is_frozen(path):
            thaw(path)  # a frozen process takes no signal (version 1)
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                select.select([fd], [], [], max(0.0, min(deadline - time.monotonic(), 1.0)))
            except ProcessLookupError:
                pass
            finally:
                os.close(fd)
            killed.add(pid)
        if time.monotonic() > deadline and processes(path):
            raise TimeoutError(errno.ETIMEDOUT, "processes do not end", path)
    return len(killed)


def has_file(parent: str, controller: str, name: str) -> bool:
    """Whether a cgroup below ``parent`` will have the file, which the root of a hierarchy need not have.

    ``parent`` is made where it is not there yet, as the runtime would.
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
    """Microseconds of real-time scheduling a period that a cgroup's processes may have (version 1 only)."""
    directory = _controller(path, "cpu")
    try:
        return int((directory / "cpu.rt_runtime_us").read_text()) if directory is not None else 0
    except (OSError, ValueError):
        return 0


def set_realtime(path: str, *, period: int, runtime: int) -> None:
    """Give a cgroup real-time scheduling to divide; microseconds, 0 leaves a value as it is.

    :raises OSError: the kernel has none, or the cgroup above has less.
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


def unlimit_pids(path: str) -> None:
    """Lift the limit on processes. :raises OSError: the cgroup is gone."""
    directory = _controller(path, "pids")
    if directory is not None:
        (directory / "pids.max").write_text("max")


def remove(path: str) -> None:
    """Remove the cgroup and its children from every hierarchy. It must hold no process any more.

    :raises OSError: EBUSY while a process is left in it.
    """
    for top in layout().directories(path):
        for directory, _subdirectories, _files in os.walk(top, topdown=False):
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                pass
