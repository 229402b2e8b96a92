"""The kernel's reports about cgroups that run out of memory, so that nobody must wait for a process to end.

Version 1: an eventfd on ``memory.oom_control`` (kernel documentation, "Memory Resource Controller", 10). It
reports each time that no memory is left, even if no process is killed. Version 2: inotify reports changes of
``memory.events``, and its counters ``oom`` and ``oom_kill`` are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wherry.linux import cgroups
from wherry.linux.inotify import IN_MODIFY, Inotify

Tell = Callable[[], None]


@dataclass
class _Counted:
    """A version 2 cgroup's file, and its last content."""

    path: Path
    seen: int
    tell: Tell


class OomWatch:
    """Cgroups that are watched. :meth:`files` are to be polled for reading, and :meth:`read` when one is."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._counted: dict[int, _Counted] = {}
        self._tells: dict[int, tuple[Path, Tell]] = {}

    def add(self, cgroup: str, tell: Tell) -> int:
        """Watch a cgroup from now on; returns the descriptor to poll, which several cgroups may share.

        :raises OSError: there is no such cgroup, or this kernel does not support it.
        """
        layout = cgroups.layout()
        if layout.version == 2:
            assert layout.unified is not None
            return self._count(layout.unified / cgroup.lstrip("/") / "memory.events", tell)
        directory = layout.hierarchies["memory"] / cgroup.lstrip("/")
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(directory / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                (directory / "cgroup.event_control").write_text(f"{event} {control}")
            finally:
                os.close(control)
        except BaseException:
            os.close(event)
            raise
        self._tells[event] = (directory, tell)
        return event

    def _count(self, path: Path, tell: Tell) -> int:
        if self._inotify is None:
            self._inotify = Inotify()
        watch = self._inotify.watch(str(path), IN_MODIFY)
        self._counted[watch] = _Counted(path, _times(path), tell)
        fd: int = self._inotify.fd
        return fd

    def read(self, fd: int) -> None:
        """Report the events on one of the descriptors."""
        if self._inotify is None or fd != self._inotify.fd:
            self._read_event(fd)
            return
        for watch in {event.watch for event in self._inotify.read()}:
            counted = self._counted.get(watch)
            if counted is None:
                continue
            times = _times(counted.path)
            if times > counted.seen:
                counted.seen = times
                counted.tell()

    def _read_event(self, fd: int) -> None:
        directory, tell = self._tells[fd]
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return
        # A removed cgroup causes the same event.
        if (directory / "cgroup.event_control").exists():
            tell()

    def remove(self, fd: int, tell: Tell) -> bool:
        """Stop watching; earlier events are reported first. Returns whether this closes ``fd``."""
        if self._inotify is None or fd != self._inotify.fd:
            self._read_event(fd)
            del self._tells[fd]
            os.close(fd)
            return True
        self.read(fd)
        for watch in [w for w, counted in self._counted.items() if counted.tell is tell]:
            del self._counted[watch]
            self._inotify.unwatch(watch)
        return False

    def close(self) -> None:
        for fd in self._tells:
            os.close(fd)
        self._tells.clear()
        self._counted.clear()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _times(path: Path) -> int:
    """How often memory ran out: ``oom`` also counts when nothing was killed."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    counts = {name: int(number) for name, _, number in (line.partition(" ") for line in lines)}
    return max(counts.get("oom", 0), counts.get("oom_kill", 0))
