"""Start, exit, stop: the order of things in a container's life.

A start is a stack of steps, each with its undo: sandbox and bundle at the same time, then the OCI runtime's
create, the waiting attach sessions, the runtime's start, the row. A failure unwinds all of it. conmon's
pidfd wakes the loop at the exit, and the same steps are undone in reverse; then the restart policy decides.

A container's row says ``running`` only after its process runs. A daemon killed in between finds a task
without such a row at its next start and removes it (see ``reconcile``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from msgspec.structs import replace

from wherry.engine import bundle, etcfiles
from wherry.engine.attributes import event_attributes
from wherry.engine.devices import Devices
from wherry.engine.events import EventBus
from wherry.engine.live import Exit, Live, LiveSet, Task
from wherry.engine.logkeeping import LogKeeping
from wherry.engine.sandboxes import Sandboxes
from wherry.engine.settings import Settings
from wherry.engine.warmup import expect_start
from wherry.errors import Conflict, Internal, NotModified, Unavailable, WherryError
from wherry.linux import cgroups, execgroups
from wherry.logs import options as log_options
from wherry.model.container import ContainerState
from wherry.runtime import task as tasks
from wherry.runtime.task import Runtime, Streams
from wherry.state.containers import ContainerRow, Containers
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.mounted import user_of
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore

log = logging.getLogger(__name__)
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

_RESTART_FIRST, _RESTART_LONGEST, _RESTART_RESET = 0.1, 60.0, 10.0
"""Seconds, as Docker's: the delay doubles at each restart and starts over after a run of ten seconds."""


class Lifecycle:
    """The use cases that change whether a container runs."""

    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        snapshotter: Snapshotter,
        volumes: VolumeStore,
        secrets: SecretStore,
        sandboxes: Sandboxes,
        devices: Devices,
        runtimes: dict[str, Runtime],
        logs: LogKeeping,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._secrets = secrets
        self._sandboxes = sandboxes
        self._devices = devices
        self._runtimes = runtimes
        self._logs = logs
        self._events = events
        self._live = live
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self.remove_row: Callable[[ContainerRow], Awaitable[None]] | None = None
        """Set by the composition: how an auto-removed container goes (``Removal.remove_exited``)."""
        self.on_running: list[Callable[[str, bool], None]] = []
        """Called with a container's id when it runs, and whether it did so before this daemon."""

    # ---- start -----------------------------------------------------------------------------------------

    async def start(self, wanted: str) -> None:
        """:raises NotModified: it runs already. :raises TaskFailed: its command cannot be executed."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            self._check_startable(row, live)
            self.cancel_restart(live)
            await self._start_locked(row, live, restart_count=0)

    @staticmethod
    def _check_startable(row: ContainerRow, live: Live) -> None:
        if live.removing or row.state.status in ("removing", "dead"):
            raise Conflict("container is marked for removal and cannot be started")
        if row.state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if live.task is not None:
            raise NotModified("container already started")

    async def _start_locked(self, row: ContainerRow, live: Live, *, restart_count: int) -> None:
        async with live.files:  # whoever writes to the layer from outside comes to an end first
            await self._start_alone(row, live, restart_count)

    async def _start_alone(self, row: ContainerRow, live: Live, restart_count: int) -> None:
        live.stopping = False
        live.restart_after = None
        expect_start()
        undo = ExitStack()
        try:
            await self._start_steps(row, live, undo, restart_count)
        except BaseException as e:
            try:
                await asyncio.shield(_in_thread(undo.close))
            except (WherryError, OSError):
                # Every step was tried; why the start failed matters more than what could not be undone.
                log.exception("cannot undo all of the start of container %s", row.id[:12])
            self._record_failure(row, live, e)
            if row.record.host_config.auto_remove and self.remove_row is not None:
                await self.remove_row(row)
            if isinstance(e, OSError):
                raise Internal(f"cannot start container {row.id[:12]}: {e}") from e
            raise

    async def _start_steps(self, row: ContainerRow, live: Live, undo: ExitStack, restart_count: int) -> None:
        record = row.record
        runtime = self._runtimes[record.host_config.runtime]
        joined, needs_sandbox = self._sandboxes.plan(row)
        sandbox_undo, bundle_undo = ExitStack(), ExitStack()
        undo.push(bundle_undo)
        undo.push(sandbox_undo)
        prepare = _in_thread(
            lambda: bundle.prepare(
                record,
                joined,
                devices=self._devices.resolve(record.host_config.device_requests or ()),
                settings=self._settings,
                snapshotter=self._snapshotter,
                volumes=self._volumes,
                secrets=self._secrets,
                undo=bundle_undo,
            )
        )
        if needs_sandbox:
            prepared, sandbox = await _both(
                prepare, _in_thread(lambda: self._sandboxes.create(row, sandbox_undo))
            )
            if sandbox.addresses:
                etcfiles.add_addresses(record, joined, self._settings, sandbox.addresses, sandbox.gateway)
        else:
            prepared = await prepare
        undo.callback(cgroups.remove, bundle.cgroup_path(record, self._settings))
        undo.callback(runtime.delete, record.id)
        started = await _in_thread(lambda: self._create(row, runtime, prepared))
        task = self._open_task(row, started)
        undo.callback(task.close)
        for session in live.pending:
            session.connect(prepared.directory)
        live.pending.clear()
        await _in_thread(lambda: runtime.start(record.id, prepared.command))
        self._adopt_started(row, live, task, restart_count)
        undo.pop_all()

    def _create(self, row: ContainerRow, runtime: Runtime, prepared: bundle.Prepared) -> tasks.Started:
        config = row.record.config
        self._logs.prepare(row)
        kept = log_options.is_kept(row.record.host_config.log_config)
        started = runtime.create(
            row.id,
            prepared.directory,
            streams=Streams(config.tty, config.open_stdin, config.stdin_once),
            log_path=self._settings.log_path(row.id) if kept else None,
            command=prepared.command,
        )
        _shelter(bundle.cgroup_path(row.record, self._settings), started.pid)
        return started

    def _open_task(self, row: ContainerRow, started: tasks.Started) -> Task:
        directory = self._settings.task_directory(row.id)
        conmon_fd = tasks.conmon_fd(directory, started.conmon_pid)
        process_fd = tasks.process_fd(started.pid)
        if conmon_fd is None or process_fd is None:
            for fd in (conmon_fd, process_fd):
                if fd is not None:
                    os.close(fd)
            raise Internal(f"cannot start container {row.id[:12]}: it was killed while it started")
        return Task(directory, started.pid, started.conmon_pid, process_fd, conmon_fd)

    def _adopt_started(self, row: ContainerRow, live: Live, task: Task, restart_count: int) -> None:
        self._containers.set_state(
            row.id,
            ContainerState(
                status="running",
                pid=task.pid,
                conmon_pid=task.conmon_pid,
                started_at=time.time_ns(),
                restart_count=restart_count,
                health=row.state.health,
            ),
        )
        self._tell_networks(row, "connect")
        self._events.publish("container", "start", row.id, event_attributes(row))
        self.watch(row, task, adopted=False)
        for session in live.pending:  # They came while the runtime started the process.
            session.connect(task.directory)
        live.pending.clear()

    def _record_failure(self, row: ContainerRow, live: Live, error: BaseException) -> None:
        code = getattr(error, "exit_code", tasks.EXIT_FAILED)
        message = error.message if isinstance(error, WherryError) else str(error)
        state = replace(row.state, status="created" if not row.state.started_at else "exited")
        self._save(row.id, replace(state, pid=0, conmon_pid=0, exit_code=code, error=message))
        for session in live.pending:
            session.abandon()
        live.pending.clear()
        self._events.publish("container", "die", row.id, event_attributes(row, exitCode=str(code)))
        live.exited(Exit(code, message))

    def _save(self, container_id: str, state: ContainerState) -> None:
        """Record what has happened already; a full disk must not keep the rest from being cleaned up."""
        for _ in range(2):
            try:
                self._containers.set_state(container_id, state)
                return
            except Unavailable as e:  # The first failure frees the database's reserve.
                log.error("container %s is %s: %s", container_id[:12], state.status, e.message)

    # ---- exit ------------------------------------------------------------------------------------------

    def watch(self, row: ContainerRow, task: Task, *, adopted: bool) -> None:
        """Own ``task`` from now on: its exit is handled whenever it comes."""
        live = self._live.get(row.id)
        live.task = task
        if adopted:
            for point in row.record.mounts:
                if point.type == "volume":
                    self._volumes.mounts.adopt(point.volume, user_of(row.id, point.destination))
        self._logs.running(row)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(task.conmon_fd)
            self._spawn(self._handle_exit(row.id, live, task))

        loop.add_reader(task.conmon_fd, ended)
        for callback in self.on_running:
            callback(row.id, adopted)

    async def _handle_exit(self, container_id: str, live: Live, task: Task) -> None:
        async with live.lock:
            row = self._containers.find(container_id)
            code, finished = await self._exit_status(row, task)
            oom = tasks.was_oom_killed(task.directory)
            live.task = None
            task.close()
            self._logs.ended(row)
            state = replace(
                row.state,
                status="exited",
                pid=0,
                conmon_pid=0,
                exit_code=code,
                oom_killed=oom,
                finished_at=finished,
                manually_stopped=live.stopping and live.restart_after is None,
                comes_back=live.restart_after is not None,
            )
            self._save(container_id, state)
            attributes = event_attributes(row, exitCode=str(code))
            seconds = max(0, finished - row.state.started_at) // 10**9
            if oom:
                self._events.publish("container", "oom", container_id, event_attributes(row))
            attributes["execDuration"] = str(seconds)
            self._events.publish("container", "die", container_id, attributes)
            await self._let_go(row)
            row = ContainerRow(row.name, row.record, state)
            delay = self._restart_delay(row, live)
            if delay is not None:
                self._save(container_id, replace(state, status="restarting"))
            live.exited(Exit(code))
            if self._removes_itself(row, live, delay) and self.remove_row is not None:
                await self.remove_row(row)
            # Nobody waits for the rest, and the lock keeps a next start behind it.
            await self._forget_task(row)
            if delay is not None:
                live.restart = self._spawn(self._restart_later(container_id, live, delay))

    @staticmethod
    def _removes_itself(row: ContainerRow, live: Live, delay: float | None) -> bool:
        return delay is None and row.record.host_config.auto_remove and not live.coming_back

    async def _exit_status(self, row: ContainerRow, task: Task) -> tuple[int, int]:
        """What conmon wrote. A conmon that was killed leaves nothing: then the process goes as well."""
        found = tasks.read_exit(task.directory)
        if found is not None:
            return found
        log.warning("conmon of container %s ended without an exit status", row.id[:12])
        if tasks.send_signal(task.process_fd, signal.SIGKILL):
            await self._process_end(task)
        return 255, time.time_ns()

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
        """Give back at once what others may want: addresses, ports, the layer."""
        results = await asyncio.gather(
            _in_thread(lambda: self._unmount(row)),
            _in_thread(lambda: self._sandboxes.delete(row.id)),
            return_exceptions=True,
        )
        self._log_failures(row, results)
        self._tell_networks(row, "disconnect")

    def _tell_networks(self, row: ContainerRow, action: str) -> None:
        for network in self._sandboxes.networks(row):
            attributes = {"container": row.id, "name": network.name, "type": network.driver}
            self._events.publish("network", action, network.id, attributes)

    def _unmount(self, row: ContainerRow) -> None:
        bundle.unmount(row.record, self._settings)
        self._volumes.mounts.give_all_back(row.id)

    async def _forget_task(self, row: ContainerRow) -> None:
        """What only the ended task used: the runtime's state, its cgroup, its bundle."""

        def work() -> None:
            self._runtimes[row.record.host_config.runtime].delete(row.id)
            bundle.release(row.record, self._settings)

        self._log_failures(row, await asyncio.gather(_in_thread(work), return_exceptions=True))

    @staticmethod
    def _log_failures(row: ContainerRow, results: Sequence[object]) -> None:
        for result in results:
            if isinstance(result, BaseException):
                log.error("cannot clean up after container %s: %s", row.id[:12], result)

    # ---- restart policy --------------------------------------------------------------------------------

    def _restart_delay(self, row: ContainerRow, live: Live) -> float | None:
        """Seconds until the restart policy's next start, or ``None`` for no restart."""
        policy = row.record.host_config.restart_policy
        if live.removing or self._closing:
            return None
        if live.restart_after is not None or live.stopping:
            return live.restart_after
        if policy.name == "on-failure":
            tries = policy.maximum_retry_count
            if row.state.exit_code == 0 or (tries and row.state.restart_count >= tries):
                return None
        elif policy.name not in ("always", "unless-stopped"):
            return None
        ran = (row.state.finished_at - row.state.started_at) / 1e9
        count = 0 if ran >= _RESTART_RESET else row.state.restart_count
        return float(min(_RESTART_FIRST * 2.0 ** min(count, 16), _RESTART_LONGEST))

    async def _restart_later(self, container_id: str, live: Live, delay: float) -> None:
        await asyncio.sleep(delay)
        async with live.lock:
            live.restart = None
            row = self._containers.find(container_id)
            if live.task is not None or live.removing or row.state.status != "restarting":
                return
            count = row.state.restart_count + 1
            try:
                await self._start_locked(row, live, restart_count=count)
            except WherryError as e:
                log.warning("cannot restart container %s: %s", container_id[:12], e.message)
                row = self._containers.find(container_id)
                state = replace(
                    row.state, restart_count=count, status="restarting", finished_at=time.time_ns()
                )
                again = self._restart_delay(ContainerRow(row.name, row.record, state), live)
                if again is not None:
                    self._containers.set_state(container_id, state)
                    live.restart = self._spawn(self._restart_later(container_id, live, again))

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


def _shelter(cgroup: str, pid: int) -> None:
    """Without it execs are told from the container's own processes less well, and that is all."""
    try:
        execgroups.shelter(cgroup, pid)
    except OSError as e:
        log.warning("cannot set process %d apart from execs: %s", pid, e)


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


async def _both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Both to their end, so that the undo of each is complete; then the first failure is raised."""
    one, two = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(two, BaseException):
        raise two
    return one, two
