"""A cgroup for every exec, so that all processes it forks can be found, signalled and ended.

One hierarchy is enough for that: version 2's tree if there is one, else version 1's freezer. Limits, pauses,
counts and lists of a container's processes do not change, because they apply to the container's cgroup and
everything below it. ::

    <container>/            where the OCI runtime puts a process that it starts in the container
    <container>/main        the container's own process, moved here before it runs (not in unified layouts)
    <container>/exec-<id>   one exec and all it forked
    <container>/probe       the health check's command

In a unified layout the runtime itself starts the exec in its group (``exec --cgroup``). In other layouts that
option would put the process outside of the container's limits in every hierarchy that lacks the group (crun
1.8). There the process is moved just after its start: it is then the only one at the top.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from wherry.linux import cgroups

MAIN, PROBE, EXEC = "main", "probe", "exec-"
_PASSES = 64
_KILL_TIMEOUT = 10.0


def _top(path: str) -> Path | None:
    """The container's directory in the hierarchy that keeps track."""
    where = cgroups.layout()
    root = where.unified if where.unified is not None else where.hierarchies.get("freezer")
    return None if root is None else root / path.lstrip("/")


def _read_pids(directory: Path) -> list[int]:
    """Without those in groups below; empty if it is gone."""
    try:
        return [int(pid) for pid in (directory / "cgroup.procs").read_bytes().split()]
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    """Never asks for the file to be made: version 1 answers that with EACCES where it is not there."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _move(directory: Path, pid: int) -> None:
    """If the process has ended, that is no error."""
    with contextlib.suppress(ProcessLookupError):
        _write(directory / "cgroup.procs", str(pid))


def shelter(path: str, pid: int) -> None:
    """Move the container's own process apart from execs. Call it before that process runs.

    :raises OSError: it cannot be moved; execs are then told apart by their parents only.
    """
    top = _top(path)
    if top is None or cgroups.layout().version == 2:
        return
    main = top / MAIN
    main.mkdir(exist_ok=True)
    _move(main, pid)


def runtime_option(name: str) -> list[str]:
    """What the OCI runtime's ``exec`` needs to start in the group ``name``."""
    return ["--cgroup", name] if cgroups.layout().version == 2 else []


class ExecGroups:
    """Makes, fills and ends the groups. Every call may block as long as the kernel needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starting: Counter[str] = Counter()

    @contextlib.contextmanager
    def starting(self, path: str, name: str) -> Iterator[None]:
        """Enter this around the runtime's start of a process and the :meth:`claim` that follows.

        :raises OSError: the group cannot be made; the container is gone.
        """
        top = _top(path)
        if top is not None:
            (top / name).mkdir(exist_ok=True)
        with self._lock:
            self._starting[path] += 1
        try:
            yield
        finally:
            with self._lock:
                self._starting[path] -= 1
                if not self._starting[path]:
                    del self._starting[path]

    def claim(self, path: str, name: str, pid: int) -> None:
        """Move ``pid``, which was just started, and everything it has forked into the group.

        If no other exec is being started, everything at the top belongs to this one. Otherwise parents and
        sessions tell; processes that cannot be assigned are left for the last exec.
        """
        top = _top(path)
        if top is None or cgroups.layout().version == 2:
            return
        group = top / name
        sheltered = (top / MAIN).is_dir()
        _move(group, pid)
        for _ in range(_PASSES):
            found = _read_pids(top)
            if not found:
                return
            if not sheltered or self._starting[path] > 1:
                found = _related(found, pid)
            if not found:
                return
            for other in found:
                _move(group, other)

    def reclaim(self, path: str, name: str, pid: int) -> None:
        """Move ``pid`` and everything it forked into the group, if a daemon was killed before it did so.

        If the number belongs to another process by now, that is not at the container's top, and is left
        alone.
        """
        top = _top(path)
        if top is None or cgroups.layout().version == 2 or pid not in _read_pids(top):
            return
        with self.starting(path, name):
            for _ in range(_PASSES):
                found = _related(_read_pids(top), pid)
                if not found:
                    return
                for other in found:
                    _move(top / name, other)

    def processes(self, path: str, name: str) -> list[int]:
        """Pids of the group and of groups made below it."""
        top = _top(path)
        if top is None:
            return []
        return [pid for directory, _, _ in os.walk(top / name) for pid in _read_pids(Path(directory))]

    def names(self, path: str) -> list[str]:
        """The existing groups."""
        top = _top(path)
        try:
            return sorted(entry.name for entry in os.scandir(top) if entry.is_dir()) if top else []
        except OSError:
            return []

    def signal(self, path: str, name: str, number: int) -> int:
        """Signal every process of the group; return how many there were."""
        pids = self.processes(path, name)
        for pid in pids:
            _send(pid, number)
        return len(pids)

    def kill(self, path: str, name: str) -> None:
        """End every process of the group, and return when none is left.

        :raises TimeoutError: one did not end within 10 s of SIGKILL.
        """
        top = _top(path)
        if top is None:
            return
        group = top / name
        deadline = time.monotonic() + _KILL_TIMEOUT
        pause = 0.0005
        while self.processes(path, name):
            try:
                _write(group / "cgroup.kill", "1")
            except FileNotFoundError:
                self._kill_each(path, name, group)
            if not self.processes(path, name):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes of {name} did not end within {_KILL_TIMEOUT:g} s of SIGKILL")
            # The kernel tells nobody when a cgroup of version 1 has become empty.
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _kill_each(self, path: str, name: str, group: Path) -> None:
        """For systems without ``cgroup.kill`` (version 1, kernels before 5.14):
        frozen processes cannot fork meanwhile."""
        state = next((group / n for n in ("freezer.state", "cgroup.freeze") if (group / n).exists()), None)
        frozen, thawed = ("FROZEN", "THAWED") if state and state.name == "freezer.state" else ("1", "0")
        try:
            if state is not None:
                _write(state, frozen)
            self.signal(path, name, signal.SIGKILL)
        finally:
            if state is not None:
                _write(state, thawed)

    def remove(self, path: str, name: str) -> bool:
        """Remove the group; False if it still contains a process."""
        top = _top(path)
        if top is None:
            return not self.processes(path, name)
        for directory, _subdirectories, _files in os.walk(top / name, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                return False
        return True


def _related(pids: Sequence[int], root: int) -> list[int]:
    """The processes that ``root`` forked:
    by session (the runtime makes a new one for every exec) and by parent."""
    mine = {root}
    found = []
    for pid in sorted(pids):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        _state, parent, _group, session = text.rpartition(")")[2].split()[:4]
        if pid == root or int(session) == root or int(parent) in mine:
            mine.add(pid)
            found.append(pid)
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
