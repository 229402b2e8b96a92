"""Running a health check's command once: bounded output, bounded time, nothing left behind.

A check needs no conmon, as nobody attaches to it and it does not outlive the daemon: the OCI runtime runs it
below the daemon, in a cgroup of its own, at half the cost of an exec. What a killed daemon left of one is
ended when the container is adopted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.bundle import cgroup_path
from wherry.engine.execspec import process_document
from wherry.engine.settings import Settings
from wherry.errors import Unavailable, WherryError
from wherry.linux import files
from wherry.linux.execgroups import PROBE, ExecGroups, runtime_option
from wherry.linux.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Inotify
from wherry.linux.process import Child
from wherry.model.exec import ExecConfig
from wherry.runtime.task import Runtime, explain
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

OUTPUT_MAX = 4096
"""Bytes of a check's output that are kept, as Docker."""
_START_TIMEOUT = 60.0


@dataclass(frozen=True)
class Ended:
    """``exit_code`` is -1 where the command did not end by itself; ``output`` says why then."""

    exit_code: int
    output: str
    timed_out: bool = False


class Prober:
    """Starts are made on few threads, so that many checks that fall due at once leave room for others."""

    def __init__(self, *, settings: Settings, runtimes: dict[str, Runtime], groups: ExecGroups) -> None:
        self._settings = settings
        self._runtimes = runtimes
        self._groups = groups
        self._threads = ThreadPoolExecutor(max(2, (os.cpu_count() or 1) // 2), "probe")

    async def run(
        self,
        row: ContainerRow,
        arguments: list[str],
        timeout: float,
        *,
        started: Callable[[], None],
        is_paused: Callable[[], bool],
    ) -> Ended:
        """Run ``arguments`` in the container; ``timeout`` in seconds. Cancelled, it ends what it began."""
        loop = asyncio.get_running_loop()
        queued = self._threads.submit(self._start, row, arguments, started)
        starting = asyncio.wrap_future(queued)
        try:
            child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not queued.cancel():  # It is being started: let that come to its end, and end it then.
                with contextlib.suppress(WherryError, OSError):
                    await self._end(row, await starting)
            raise
        except (WherryError, OSError) as e:
            return Ended(-1, e.message if isinstance(e, WherryError) else str(e))
        output = _Output(child)
        loop.add_reader(child.output, output.read)
        try:
            ended = await self._wait(child, timeout, is_paused)
        finally:
            loop.remove_reader(child.output)
            code = await self._end(row, child, output)
        return Ended(code, output.text(), timed_out=not ended)

    @staticmethod
    async def _wait(child: Child, timeout: float, is_paused: Callable[[], bool]) -> bool:
        """Whether it ended in time. A paused container's check cannot go on, nor can it be ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.pidfd, ended.set)
        try:
            while True:
                try:
                    await asyncio.wait_for(ended.wait(), timeout)
                    return True
                except TimeoutError:
                    if not is_paused():
                        return False
        finally:
            loop.remove_reader(child.pidfd)

    async def _end(self, row: ContainerRow, child: Child, output: _Output | None = None) -> int:
        """End what is left of it, also when it ended by itself; return its exit code."""
        path = cgroup_path(row.record, self._settings)

        def work() -> int:
            try:
                self._groups.kill(path, PROBE)
            except (OSError, TimeoutError) as e:
                log.warning("cannot end a health check of container %s: %s", row.id[:12], e)
            if output is not None:
                output.read()
            code = child.close()
            return 128 - code if code < 0 else code

        return await asyncio.shield(asyncio.to_thread(work))

    def sweep(self, row: ContainerRow) -> None:
        """End what a daemon that was killed left of a check, claimed or not. Blocks."""
        path = cgroup_path(row.record, self._settings)
        pid = _pid(self._settings.task_directory(row.id) / "probe" / "pid")
        try:
            if pid is not None:
                self._groups.reclaim(path, PROBE, pid)
            self._groups.kill(path, PROBE)
        except (OSError, TimeoutError) as e:
            log.warning("cannot end a health check of container %s: %s", row.id[:12], e)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ---- on a thread -----------------------------------------------------------------------------------

    def _start(self, row: ContainerRow, arguments: list[str], started: Callable[[], None]) -> Child:
        """:raises TaskFailed: the command cannot be executed."""
        task = self._settings.task_directory(row.id)
        directory = task / "probe"
        if not task.is_dir():
            raise Unavailable("the container has ended")
        directory.mkdir(exist_ok=True, mode=0o700)
        spec, pid_file = directory / "process.json", directory / "pid"
        pid_file.unlink(missing_ok=True)
        document = process_document(row.record, ExecConfig(cmd=arguments), task / "rootfs")
        files.write_atomic(spec, document, durable=False)
        path = cgroup_path(row.record, self._settings)
        runtime = self._runtimes[row.record.host_config.runtime]
        with self._groups.starting(path, PROBE):
            child = self._spawn(runtime, row.id, spec, pid_file)
            pid = _pid(pid_file)
            if pid is not None:
                self._groups.claim(path, PROBE, pid)
        if pid is None:
            message = child.read()[:OUTPUT_MAX].decode(errors="replace")
            child.close()
            raise explain(message, arguments[0])
        started()
        return child

    @staticmethod
    def _spawn(runtime: Runtime, container_id: str, spec: Path, pid_file: Path) -> Child:
        """Return once its pid is written, or it has ended, or it takes too long."""
        watch = Inotify()
        try:
            watch.watch(str(pid_file.parent), IN_CLOSE_WRITE | IN_MOVED_TO)
            child = runtime.run_beside(container_id, spec, pid_file, runtime_option(PROBE))
            poll = select.poll()
            poll.register(watch.fd, select.POLLIN)
            poll.register(child.pidfd, select.POLLIN)
            deadline = time.monotonic() + _START_TIMEOUT
            while _pid(pid_file) is None:
                ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
                if not ready or child.pidfd in ready:
                    break
                watch.read()
            return child
        finally:
            watch.close()


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


class _Output:
    """The first bytes of what a check prints; the rest is read and dropped, so that it never waits for us."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._kept = bytearray()
        self._cut = False

    def read(self) -> None:
        while chunk := self._child.read():
            room = OUTPUT_MAX - len(self._kept)
            self._kept += chunk[:room]
            self._cut = self._cut or len(chunk) > room

    def text(self) -> str:
        return self._kept.decode(errors="replace") + ("..." if self._cut else "")
