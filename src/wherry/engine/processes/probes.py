"""Running a health check's command once: bounded output, bounded time, nothing left behind.

A check needs no conmon: nobody attaches to it, and it does not outlive the daemon. The OCI runtime runs it as
the daemon's child, in a cgroup of its own, at half the cost of an exec. If the daemon is killed, the rest of
a check is ended when the next daemon adopts the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wherry import threads
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.processes.execspec import process_document
from wherry.engine.settings import Settings
from wherry.errors import Unavailable, WherryError
from wherry.linux import files
from wherry.linux.execgroups import PROBE, ExecGroups, runtime_option
from wherry.linux.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Inotify
from wherry.linux.process import Child
from wherry.model.exec import ExecConfig
from wherry.runtime.task import Runtime
from wherry.runtime.words import explain
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

OUTPUT_MAX = 4096
"""Bytes of a check's output that are stored, as in Docker."""
_START_TIMEOUT = 60.0


@dataclass(frozen=True)
class ProbeResult:
    """``exit_code`` is -1 if the command did not end by itself; ``output`` then says why."""

    exit_code: int
    output: str
    timed_out: bool = False


class Prober:
    """Checks are started on few threads: many checks at the same moment must not block other work."""

    def __init__(self, *, settings: Settings, runtimes: dict[str, Runtime], groups: ExecGroups) -> None:
        self._settings = settings
        self._runtimes = runtimes
        self._groups = groups

    async def run(
        self,
        row: ContainerRow,
        arguments: list[str],
        timeout: float,
        *,
        started: Callable[[], None],
        is_paused: Callable[[], bool],
    ) -> ProbeResult:
        """Run ``arguments`` in the container; ``timeout`` in seconds. If cancelled, it ends the command."""
        loop = asyncio.get_running_loop()
        queued = threads.probe.submit(self._start, row, arguments, started)
        starting = asyncio.wrap_future(queued)
        try:
            child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not queued.cancel():  # It is being started: let the start finish, then end it.
                with contextlib.suppress(WherryError, OSError):
                    await self._end(row, await starting)
            raise
        except (WherryError, OSError) as e:
            return ProbeResult(-1, e.message if isinstance(e, WherryError) else str(e))
        output = _Output(child)
        loop.add_reader(child.output, output.read)
        try:
            ended = await self._wait(child, timeout, is_paused)
        finally:
            loop.remove_reader(child.output)
            code = await self._end(row, child, output)
        return ProbeResult(code, output.text(), timed_out=not ended)

    @staticmethod
    async def _wait(child: Child, timeout: float, is_paused: Callable[[], bool]) -> bool:
        """Whether it ended in time. While the container is paused, its check can neither run nor be ended."""
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
        """End all of its processes, even if the first one ended by itself; return its exit code."""
        path = cgroup_path(row.record, self._settings)

        def work() -> int:
            try:
                self._groups.kill(path, PROBE)
            except (OSError, TimeoutError) as e:
                log.warning("cannot end a health check of container %s: %s", row.id[:12], e)
            finally:
                if output is not None:
                    output.read()
                code = child.close()
            return 128 - code if code < 0 else code

        return await asyncio.shield(threads.runtime(work))

    def sweep(self, row: ContainerRow) -> None:
        """End what a killed daemon left of a check, whether or not it was recorded. Blocks."""
        path = cgroup_path(row.record, self._settings)
        pid = _pid(self._settings.task_directory(row.id) / "probe" / "pid")
        try:
            if pid is not None:
                self._groups.reclaim(path, PROBE, pid)
            self._groups.kill(path, PROBE)
        except (OSError, TimeoutError) as e:
            log.warning("cannot end a health check of container %s: %s", row.id[:12], e)

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
        document = process_document(
            row.record, ExecConfig(cmd=arguments), task / "rootfs", self._settings.security
        )
        files.write_atomic(spec, document, durable=False)
        path = cgroup_path(row.record, self._settings)
        runtime = self._runtimes[row.record.host_config.runtime]
        with contextlib.ExitStack() as undo:
            with self._groups.starting(path, PROBE):
                child = self._spawn(runtime, row, spec, pid_file)
                undo.callback(child.close)  # The container may end at any moment.
                pid = _pid(pid_file)
                if pid is not None:
                    self._groups.claim(path, PROBE, pid)
            if pid is None:
                raise explain(child.read()[:OUTPUT_MAX].decode(errors="replace"), arguments[0])
            started()
            undo.pop_all()
        return child

    @staticmethod
    def _spawn(runtime: Runtime, row: ContainerRow, spec: Path, pid_file: Path) -> Child:
        """Return once the pid file is written, the process has ended, or the start takes too long."""
        watch = Inotify()
        try:
            watch.watch(str(pid_file.parent), IN_CLOSE_WRITE | IN_MOVED_TO)
            score = row.record.host_config.oom_score_adj
            child = runtime.run_beside(row.id, spec, pid_file, runtime_option(PROBE), oom_score_adj=score)
            try:
                poll = select.poll()
                poll.register(watch.fd, select.POLLIN)
                poll.register(child.pidfd, select.POLLIN)
                deadline = time.monotonic() + _START_TIMEOUT
                while _pid(pid_file) is None:
                    ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
                    if not ready or child.pidfd in ready:
                        break
                    watch.read()
            except BaseException:
                child.close()
                raise
            return child
        finally:
            watch.close()


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


class _Output:
    """Keeps the first bytes of a check's output.
    The rest is read and dropped, so that the check never blocks."""

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
