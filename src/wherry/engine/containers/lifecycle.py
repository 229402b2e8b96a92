"""Start, exit, stop: the order of steps in a container's life.

A start is a stack of steps, each with its undo: sandbox and bundle at the same time, then the OCI runtime's
``create``, the waiting attach sessions, the runtime's ``start``, the row. A failure undoes all of them. At
the exit conmon's pidfd wakes the loop, and the same steps are undone in reverse order. What follows an exit,
and in which order, is decided in ``endings``; this file carries it out.

A container's row says ``running`` only after its process runs. If the daemon is killed in between, its next
start finds a task without such a row and removes it (see ``reconcile``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import bundle, endings, etcfiles
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.endings import AfterExit, Asked, ExitStep
from wherry.engine.containers.launching import Launching
from wherry.engine.containers.observers import Observers
from wherry.engine.containers.oom import OomReports
from wherry.engine.containers.sandboxes import Sandboxes
from wherry.engine.containers.warmup import expect_start
from wherry.engine.ground import Ground, Stores
from wherry.engine.live import Exit, Live, Task
from wherry.engine.logs.keeping import LogKeeping
from wherry.errors import Internal, Unavailable, WherryError
from wherry.linux import cgroups, descriptors
from wherry.mishaps import contained, reason_of
from wherry.model.container import ContainerState
from wherry.runtime import task as tasks
from wherry.runtime.monitor import Started
from wherry.runtime.words import EXIT_FAILED
from wherry.state.containers import ContainerRow
from wherry.volumes.mounted import user_of

log = logging.getLogger(__name__)


class Lifecycle:
    """The use cases that change whether a container runs."""

    def __init__(
        self,
        ground: Ground,
        stores: Stores,
        *,
        sandboxes: Sandboxes,
        devices: Devices,
        logs: LogKeeping,
        observers: Observers,
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._volumes = stores.volumes
        self._sandboxes = sandboxes
        self._launching = Launching(ground, stores, devices=devices, logs=logs)
        self._runtimes = stores.runtimes
        self._logs = logs
        self._events = ground.events
        self._live = ground.live
        self._oom = OomReports(ground)
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self._observers = observers

    # ---- start -----------------------------------------------------------------------------------------

    async def start(self, wanted: str, *, standby: bool = False) -> None:
        """:param standby: without its published ports, aliases and host name, until it takes them over from
            another container (``takeover``).
        :raises NotModified: it runs already. :raises TaskFailed: its command cannot be executed.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            runs = live.task is not None
            endings.check_startable(row.state.status, removing=live.removing, runs=runs)
            self.cancel_restart(live)
            await self._start_locked(row, live, restart_count=0, standby=standby)

    async def _start_locked(
        self, row: ContainerRow, live: Live, *, restart_count: int, standby: bool = False
    ) -> None:
        async with live.files:  # whoever writes to the layer from outside finishes first
            await live.until_put_away()
            await self._start_alone(row, live, restart_count, standby)

    async def _start_alone(self, row: ContainerRow, live: Live, restart_count: int, standby: bool) -> None:
        descriptors.require(f"start container {row.id[:12]}")
        live.stopping = False
        live.restart_after = None
        expect_start()
        undo = ExitStack()
        try:
            await self._start_steps(row, live, undo, restart_count, standby)
        except BaseException as e:
            try:
                await asyncio.shield(threads.runtime(undo.close))
            except (WherryError, OSError):
                # Every undo was tried. Report why the start failed, not what could not be undone.
                log.exception("cannot undo all of the start of container %s", row.id[:12])
            self._record_failure(row, live, e, restart_count)
            if row.record.host_config.auto_remove:
                await self._remove_itself(row)
            if isinstance(e, OSError):
                raise Internal(f"cannot start container {row.id[:12]}: {e}") from e
            raise

    async def _start_steps(
        self, row: ContainerRow, live: Live, undo: ExitStack, restart_count: int, standby: bool
    ) -> None:
        record = row.record
        runtime = self._runtimes[record.host_config.runtime]
        joined, needs_sandbox = self._sandboxes.plan(row)
        sandbox_undo, bundle_undo = ExitStack(), ExitStack()
        undo.push(bundle_undo)
        undo.push(sandbox_undo)
        prepare = threads.runtime(self._launching.prepare, row, joined, bundle_undo)
        if needs_sandbox:
            prepared, sandbox = await threads.both(
                prepare, threads.runtime(lambda: self._sandboxes.create(row, sandbox_undo, standby=standby))
            )
            if sandbox.addresses:
                etcfiles.add_addresses(record, joined, self._settings, sandbox.addresses, sandbox.gateway)
        else:
            prepared = await prepare
        undo.callback(cgroups.remove, bundle.cgroup_path(record, self._settings))
        undo.callback(runtime.delete, record.id)
        started = await threads.runtime(self._launching.create, row, prepared)
        task = self._open_task(row, started)
        undo.callback(task.close)
        for session in live.pending:
            session.connect(prepared.bundle.directory)
        live.pending.clear()
        # Taken before the process can print: clients read the log of this run with StartedAt as ``since``.
        started_at = time.time_ns()
        await threads.runtime(lambda: runtime.start(record.id, prepared.bundle.command))
        self._adopt_started(row, live, task, started_at, restart_count)
        undo.pop_all()

    def _open_task(self, row: ContainerRow, started: Started) -> Task:
        directory = self._settings.task_directory(row.id)
        conmon_fd = tasks.conmon_fd(directory, started.conmon_pid)
        process_fd = tasks.process_fd(started.pid)
        if conmon_fd is None or process_fd is None:
            for fd in (conmon_fd, process_fd):
                if fd is not None:
                    os.close(fd)
            raise Internal(f"cannot start container {row.id[:12]}: it was killed while it started")
        return Task(directory, started.pid, started.conmon_pid, process_fd, conmon_fd)

    def _adopt_started(
        self, row: ContainerRow, live: Live, task: Task, started_at: int, restart_count: int
    ) -> None:
        self._containers.set_state(
            row.id,
            ContainerState(
                status="running",
                pid=task.pid,
                conmon_pid=task.conmon_pid,
                started_at=started_at,
                restart_count=restart_count,
                health=row.state.health,
            ),
        )
        self._tell_networks(row, "connect")
        self._tell_volumes(row, "mount")
        self._events.publish("container", "start", row.id, event_attributes(row))
        self.watch(row, task, adopted=False)
        for session in live.pending:  # They came while the runtime started the process.
            session.connect(task.directory)
        live.pending.clear()

    def _record_failure(
        self, row: ContainerRow, live: Live, error: BaseException, restart_count: int
    ) -> None:
        code = getattr(error, "exit_code", EXIT_FAILED)
        message = error.message if isinstance(error, WherryError) else str(error)
        state, delay = endings.failed_start(
            row.record.host_config,
            row.state,
            self._asked(live),
            exit_code=code,
            error=message,
            restart_count=restart_count,
            now=time.time_ns(),
        )
        self._save(row.id, state)
        for session in live.pending:
            session.abandon()
        live.pending.clear()
        self._events.publish("container", "die", row.id, event_attributes(row, exitCode=str(code)))
        live.exited(Exit(code))  # the answer to the start has the message
        if delay is not None:
            live.restart = self._spawn(self._restart_later(row.id, live, delay))

    def _save(self, container_id: str, state: ContainerState) -> None:
        """Record something that has happened already. A full disk must not stop the rest of the clean-up."""
        for _ in range(2):
            try:
                self._containers.set_state(container_id, state)
                return
            except Unavailable as e:  # Try again: there may be room in a moment.
                log.error("container %s is %s: %s", container_id[:12], state.status, e.message)

    # ---- exit ------------------------------------------------------------------------------------------

    def hold(self, row: ContainerRow, task: Task) -> None:
        """A task of an earlier daemon's counts as running from now on. :meth:`watch` it soon."""
        self._live.get(row.id).task = task
        for point in row.record.mounts:
            if point.type == "volume":
                self._volumes.mounts.adopt(point.volume, user_of(row.id, point.destination))

    def let_go(self, container_id: str) -> None:
        """Whether a task that was held runs is unknown again."""
        live = self._live.get(container_id)
        task, live.task = live.task, None
        if task is not None:
            asyncio.get_running_loop().remove_reader(task.conmon_fd)
            self._oom.ended(container_id, noted=False)
            task.close()

    def watch(self, row: ContainerRow, task: Task, *, adopted: bool) -> None:
        """Own ``task`` from now on: its exit is handled whenever it comes."""
        live = self._live.get(row.id)
        live.task = task
        self._logs.running(row)
        self._oom.running(row.id)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(task.conmon_fd)
            self._spawn(self._handle_exit(row.id, live, task))

        loop.add_reader(task.conmon_fd, ended)
        for callback in self._observers.running:
            callback(row.id, adopted)

    async def _handle_exit(self, container_id: str, live: Live, task: Task) -> None:
        async with live.lock:
            with contained(
                f"settle the end of container {container_id[:12]}",
                lambda reason: self._ended_badly(container_id, live, task, reason),
            ):
                await self._settle_exit(container_id, live, task)

    def _ended_badly(self, container_id: str, live: Live, task: Task, reason: str) -> None:
        """Record the exit although a part of the clean-up failed."""
        live.task = None
        task.close()
        self._oom.ended(container_id, noted=False)
        row = self._containers.find(container_id)
        state = endings.ended_badly(row.state, reason, time.time_ns())
        if state != row.state:
            self._save(container_id, state)
        live.exited(Exit(row.state.exit_code or endings.UNKNOWN, reason))

    async def _settle_exit(self, container_id: str, live: Live, task: Task) -> None:
        row = self._containers.find(container_id)
        code, finished = await self._exit_status(row, task)
        self._oom.ended(container_id, noted=tasks.was_oom_killed(task.directory))
        row = self._containers.find(container_id)
        live.task = None
        task.close()
        self._logs.ended(row)
        after = endings.after_exit(
            row.record.host_config, row.state, self._asked(live), exit_code=code, finished_at=finished
        )
        for step in after.steps:
            await self._follow(step, row, live, after)

    async def _follow(self, step: ExitStep, row: ContainerRow, live: Live, after: AfterExit) -> None:
        """Carry out one step after an exit. ``row`` is as it was before."""
        ended = ContainerRow(row.name, row.record, after.state)
        match step:
            case ExitStep.SAVE:
                self._save(row.id, after.state)
            case ExitStep.PUBLISH:
                attributes = event_attributes(row, exitCode=str(after.state.exit_code))
                attributes["execDuration"] = str(after.ran)
                self._events.publish("container", "die", row.id, attributes)
            case ExitStep.RELEASE:
                await self._let_go(row)
            case ExitStep.ANSWER:
                live.exited(Exit(after.state.exit_code))
            case ExitStep.REMOVE:
                if not live.coming_back:  # A restart may have come during the release.
                    await self._remove_itself(ended)
            case ExitStep.FORGET:
                await self._forget_task(ended)
            case ExitStep.FIT_LOGS:
                if not live.removing:  # else its log goes as well
                    await self._logs.fit(ended)
            case ExitStep.RESTART:
                assert after.delay is not None
                live.restart = self._spawn(self._restart_later(row.id, live, after.delay))

    def _asked(self, live: Live) -> Asked:
        return Asked(
            stopping=live.stopping,
            removing=live.removing,
            coming_back=live.coming_back,
            restart_after=live.restart_after,
            closing=self._closing,
        )

    async def _remove_itself(self, row: ContainerRow) -> None:
        for remove in self._observers.self_removing:
            await remove(row)

    async def _exit_status(self, row: ContainerRow, task: Task) -> tuple[int, int]:
        """The exit status that conmon wrote.
        A killed conmon leaves none: then the process is killed as well."""
        found = tasks.read_exit(task.directory)
        if found is not None:
            return found
        log.warning("conmon of container %s ended without an exit status", row.id[:12])
        if tasks.send_signal(task.process_fd, signal.SIGKILL):
            await self._process_end(task)
        return endings.UNKNOWN, time.time_ns()

    @staticmethod
    async def _process_end(task: Task) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(task.process_fd, wake)
        try:
            await ended
        finally:
            loop.remove_reader(task.process_fd)

    async def _let_go(self, row: ContainerRow) -> None:
        """Release at once what others may want: addresses, ports, the layer."""
        results = await asyncio.gather(
            threads.runtime(lambda: self._unmount(row)),
            threads.runtime(lambda: self._sandboxes.delete(row.id)),
            return_exceptions=True,
        )
        self._log_failures(row, results)
        if isinstance(results[0], int) and results[0] >= 0:
            # Nobody waits for the disk but the next start: the answer and a removal need not.
            self._live.get(row.id).put_away(partial(threads.disk.submit, _put_away, results[0]))
        self._tell_networks(row, "disconnect")
        self._tell_volumes(row, "unmount")

    def _tell_volumes(self, row: ContainerRow, action: str) -> None:
        for point in row.record.mounts:
            if point.type != "volume":
                continue
            attributes = {"container": row.id, "driver": point.driver or "local"}
            if action == "mount":
                more = {"read/write": "true" if point.rw else "false", "propagation": point.propagation}
                attributes |= {"destination": point.destination, **more}
            self._events.publish("volume", action, point.name or point.volume, attributes)

    def _tell_networks(self, row: ContainerRow, action: str) -> None:
        for network in self._sandboxes.networks(row):
            attributes = {"container": row.id, "name": network.name, "type": network.driver}
            self._events.publish("network", action, network.id, attributes)

    def _unmount(self, row: ContainerRow) -> int:
        """:returns: see :func:`bundle.let_go`."""
        loose = bundle.let_go(row.record, self._settings)
        try:
            self._volumes.mounts.give_all_back(row.id)
        except BaseException:
            if loose >= 0:
                os.close(loose)
            raise
        return loose

    async def _forget_task(self, row: ContainerRow) -> None:
        """Remove what only the ended task used: the runtime's state, its cgroup, its bundle."""

        def work() -> None:
            self._runtimes[row.record.host_config.runtime].delete(row.id)
            bundle.release(row.record, self._settings)

        self._log_failures(row, await asyncio.gather(threads.runtime(work), return_exceptions=True))

    @staticmethod
    def _log_failures(row: ContainerRow, results: Sequence[object]) -> None:
        for result in results:
            if isinstance(result, BaseException):
                log.error("cannot clean up after container %s: %s", row.id[:12], result)

    # ---- restart policy --------------------------------------------------------------------------------

    async def _restart_later(self, container_id: str, live: Live, delay: float) -> None:
        await asyncio.sleep(delay)
        async with live.lock:
            live.restart = None
            row = self._containers.find(container_id)
            if live.task is not None or live.removing or row.state.status != "restarting":
                return
            try:
                await self._start_locked(row, live, restart_count=row.state.restart_count)
            except Exception as e:  # Whatever the error is, the restart policy goes on.
                log.warning("cannot restart container %s: %s", container_id[:12], reason_of(e))

    def cancel_restart(self, live: Live) -> bool:
        if live.restart is None:
            return False
        live.restart.cancel()
        live.restart = None
        return True

    # ---- the daemon's own end --------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed", exc_info=task.exception())

    async def close(self) -> None:
        """Leave containers running; stop watching them and wait for clean-ups under way."""
        self._closing = True
        loop = asyncio.get_running_loop()
        for live in self._live.running():
            if live.task is not None:
                loop.remove_reader(live.task.conmon_fd)
            self.cancel_restart(live)
        if self._background:
            await asyncio.wait(self._background, timeout=self._settings.shutdown_timeout)
        for live in self._live.running():
            if live.task is not None:
                live.task.close()
                live.task = None
        self._oom.close()


def _put_away(layer: int) -> None:
    """Close an ended task's layer; it takes as long as the disk below it needs to write."""
    try:
        os.close(layer)
    except OSError as e:
        log.warning("an ended container's files may not all be on the disk: %s", e)
