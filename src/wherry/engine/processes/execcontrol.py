"""List and stop the execs of a container. Docker has no API for either."""

from __future__ import annotations

import asyncio
import os
import signal

from wherry import threads
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.processes import execkeeping
from wherry.engine.processes.execs import Exec, ExecService
from wherry.engine.settings import Settings
from wherry.errors import Conflict, Internal, NotFound, NotModified
from wherry.linux.execgroups import ExecGroups
from wherry.model.signals import parse_signal
from wherry.model.views import ExecListing
from wherry.state.containers import Containers

_RECORDED_WITHIN = 10.0
"""Seconds between the end of an exec's last process and the record of it, at most."""


class ExecControl:
    """Processes that an exec has forked belong to it, even after its first process has ended."""

    def __init__(
        self, *, settings: Settings, containers: Containers, execs: ExecService, groups: ExecGroups
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._execs = execs
        self._groups = groups

    async def listing(self, wanted: str) -> list[ExecListing]:
        """The container's execs that run, or that left processes running, oldest first."""
        row = self._containers.find(wanted)
        found = [e for e in self._execs.of(row.id) if e.running or e.left]
        counts = await threads.runtime(lambda: [self._count(e) for e in found])
        return [
            ExecListing(
                view=self._execs.view(e),
                user=e.config.user or row.record.config.user,
                started_at=e.started_at,
                processes=count,
            )
            for e, count in zip(found, counts, strict=True)
            if e.running or count
        ]

    def _count(self, execution: Exec) -> int:
        count = len(self._processes(execution))
        if not count and execution.left:
            self._execs.tidy(execution)
        return count

    async def stop(self, exec_id: str, timeout: int | None) -> None:
        """TERM to all of its processes, then KILL to those left after ``timeout`` seconds (-1: never).

        :raises NotModified: none of its processes runs. :raises Conflict: the container is paused.
        """
        execution = self._checked(exec_id)
        self._signal(execution, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._all_ended(execution), execkeeping.grace(timeout))
        except TimeoutError:
            await self._kill(execution)
        await self._settled(execution)

    async def kill(self, exec_id: str, signal_name: str) -> None:
        """KILL ends all of its processes; any other signal goes to the first one only.

        :raises Conflict: none of its processes runs, or the container is paused.
        """
        number = parse_signal(signal_name or "KILL")
        try:
            execution = self._checked(exec_id)
        except NotModified as e:
            raise Conflict(f"cannot kill exec {exec_id}: it is not running") from e
        if number == signal.SIGKILL:
            await self._kill(execution)
            await self._settled(execution)
        elif not execution.running:
            raise Conflict(f"cannot signal exec {exec_id}: its first process has ended")
        else:
            _send([execution.pid], number)

    def _checked(self, exec_id: str) -> Exec:
        execution = self._execs.find(exec_id)
        try:
            status = self._containers.find(execution.row.id).state.status
        except NotFound:
            status = "removing"
        alive = execution.running or bool(self._processes(execution))
        execkeeping.check_stoppable(execution.row.id, status, alive=alive)
        return execution

    def _processes(self, execution: Exec) -> list[int]:
        path = cgroup_path(execution.row.record, self._settings)
        found = self._groups.processes(path, execution.group)
        return found or ([execution.pid] if execution.running else [])

    def _signal(self, execution: Exec, number: int) -> None:
        _send(self._processes(execution), number)

    async def _all_ended(self, execution: Exec) -> None:
        """Wait on the processes' pidfds; processes that are forked meanwhile are included."""
        path = cgroup_path(execution.row.record, self._settings)
        while pids := self._groups.processes(path, execution.group):
            for pid in pids:
                await _end_of(pid)
        if execution.running:
            await execution.ended.wait()

    async def _kill(self, execution: Exec) -> None:
        path = cgroup_path(execution.row.record, self._settings)
        self._signal(execution, signal.SIGKILL)
        try:
            await threads.runtime(self._groups.kill, path, execution.group)
        except TimeoutError as e:
            raise Internal(f"cannot kill exec {execution.id}: {e}") from e

    async def _settled(self, execution: Exec) -> None:
        """Wait until its end is recorded, so that the next request sees it as ended."""
        if execution.running:
            await asyncio.wait_for(execution.ended.wait(), _RECORDED_WITHIN)
        if execution.left:
            await threads.runtime(self._execs.tidy, execution)


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


async def _end_of(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        await asyncio.sleep(0)  # It ended just now; its cgroup will show that.
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
