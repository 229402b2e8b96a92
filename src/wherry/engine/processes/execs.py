"""Execs: further processes in a running container, each under a conmon of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.containers.names import new_id
from wherry.engine.containers.warmup import expect_start
from wherry.engine.ground import Ground
from wherry.engine.live import Live, Task
from wherry.engine.processes import execkeeping
from wherry.engine.processes.attach import AttachOptions, AttachSession, AttachStream
from wherry.engine.processes.execmonitors import Monitors
from wherry.engine.processes.execspec import check_user, process_document
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.linux import descriptors, files
from wherry.linux.execgroups import EXEC, ExecGroups, runtime_option
from wherry.model.base import Value, decode, encode
from wherry.model.exec import ExecConfig
from wherry.model.views import ExecView
from wherry.runtime import task as tasks
from wherry.runtime.monitor import PendingExec, Started
from wherry.runtime.task import Runtime, Streams
from wherry.runtime.words import TaskFailed, not_executed
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

_KEEP_AFTER = 300.0
"""Seconds that an exec can still be inspected after its container's end."""

_READY_WITHIN = 10.0
"""Seconds that a resize request waits for the process to start."""

_RECORD, _TOLD = "exec.json", "told"


@dataclass
class Exec:
    """One exec. ``ended`` is set to its exit code; ``ready`` is set once it runs or has failed.

    :ivar started_at: nanoseconds since the epoch. :ivar left: its first process has ended, but others still
    run.
    :ivar size: bytes of its configuration. :ivar open: the container's execs that run or are not started yet.
    """

    id: str
    row: ContainerRow
    config: ExecConfig
    detach_keys: bytes
    pid: int = 0
    running: bool = False
    exit_code: int | None = None
    started: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    directory: Path | None = None
    started_at: int = 0
    left: bool = False
    size: int = 0
    open: dict[str, None] = field(default_factory=dict)

    def close(self) -> None:
        """It will not run any more, so its container does not list it."""
        self.open.pop(self.id, None)

    @property
    def group(self) -> str:
        """Its cgroup below the container's."""
        return f"{EXEC}{self.id[:16]}"


class _Record(Value, frozen=True, kw_only=True):
    """``exec.json`` in an exec's directory: what a later daemon needs to know about it."""

    config: ExecConfig
    detach_keys: str
    started_at: int

    @classmethod
    def of(cls, execution: Exec) -> _Record:
        return cls(
            config=execution.config,
            detach_keys=execution.detach_keys.hex(),
            started_at=execution.started_at,
        )

    def execution(self, exec_id: str, row: ContainerRow) -> Exec:
        return Exec(
            exec_id,
            row,
            self.config,
            bytes.fromhex(self.detach_keys),
            running=True,
            started=True,
            started_at=self.started_at,
        )


class ExecService:
    def __init__(self, ground: Ground, *, runtimes: dict[str, Runtime], groups: ExecGroups) -> None:
        self._settings = ground.settings
        self._groups = groups
        self._containers = ground.containers
        self._runtimes = runtimes
        self._events = ground.events
        self._live = ground.live
        self._execs: dict[str, Exec] = {}
        self._watches: dict[int, int] = {}
        self._monitors = Monitors()

    async def create(self, wanted: str, config: ExecConfig, detach_keys: bytes) -> str:
        """:raises Conflict: the container does not run, or is paused.
        :raises InvalidArgument: no command, or a user that the container does not have.
        """
        if not (config.cmd or []):
            raise InvalidArgument("No exec command specified")
        row = self._containers.find(wanted)
        live = self._check_running(row, wanted)
        expect_start()
        if config.user:
            assert live.task is not None
            rootfs = live.task.directory / "rootfs"
            try:
                await threads.runtime(check_user, row.record, config.user, rootfs)
            except FileNotFoundError as e:
                raise Conflict(f"container {row.id} is not running") from e
            self._check_running(row, wanted)
        execution = Exec(new_id(), row, config, detach_keys, size=len(encode(config)))
        self._keep(live, execution)
        self._forget_old(live)
        assert live.task is not None
        self._monitors.expect(execution.id, partial(self._monitor, execution, live.task))
        command = _words(config.cmd or [])
        self._events.publish(
            "container", f"exec_create: {command}", row.id, event_attributes(row, execID=execution.id)
        )
        return execution.id

    def _check_running(self, row: ContainerRow, wanted: str = "") -> Live:
        """:param wanted: what the client calls it."""
        live = self._live.get(row.id)
        runs = live.task is not None
        status = self._containers.find(row.id).state.status if runs else ""
        execkeeping.check_container(row.id, wanted or row.id, status, runs=runs)
        return live

    def _forget_old(self, live: Live) -> None:
        known = [execution for i in live.exec_ids if (execution := self._execs.get(i))]
        for exec_id in execkeeping.to_forget(known):
            live.exec_ids.remove(exec_id)
            live.open_execs.pop(exec_id, None)
            self._execs.pop(exec_id, None)
            self._monitors.drop(exec_id)

    def _forget(self, live: Live, execution: Exec) -> None:
        execution.close()
        if execution.id in live.exec_ids:
            live.exec_ids.remove(execution.id)
        self._monitors.drop(execution.id)
        if not execution.started:
            self._execs.pop(execution.id, None)
            return
        # A client that waited for it asks for its exit code once more; after that nobody does.
        asyncio.get_running_loop().call_later(_KEEP_AFTER, self._execs.pop, execution.id, None)

    def find(self, exec_id: str) -> Exec:
        execution = self._execs.get(exec_id)
        if execution is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return execution

    def of(self, container_id: str) -> list[Exec]:
        """The container's execs, oldest first."""
        known = self._live.get(container_id).exec_ids
        return [self._execs[exec_id] for exec_id in known if exec_id in self._execs]

    def inspect(self, exec_id: str) -> ExecView:
        execution = self.find(exec_id)
        try:
            self._containers.by_id(execution.row.id)
        except NotFound as e:
            raise NotFound(f"No such exec instance: {exec_id}") from e
        return self.view(execution)

    @staticmethod
    def view(execution: Exec) -> ExecView:
        command = execution.config.cmd or []
        return ExecView(
            id=execution.id,
            container_id=execution.row.id,
            running=execution.running,
            exit_code=execution.exit_code,
            pid=execution.pid,
            tty=execution.config.tty,
            open_stdin=execution.config.attach_stdin,
            open_stdout=execution.config.attach_stdout,
            open_stderr=execution.config.attach_stderr,
            entrypoint=command[0],
            arguments=tuple(command[1:]),
            user=execution.config.user,
            privileged=execution.config.privileged,
            detach_keys=execution.config.detach_keys,
        )

    def prepare_start(self, exec_id: str) -> Exec:
        """Check that its container runs, before the client's connection is hijacked.

        :raises NotFound: there is no such exec, or its container is gone.
        :raises Conflict: the container has stopped, or is paused.
        """
        execution = self.find(exec_id)
        try:
            self._containers.find(execution.row.id)
            self._check_running(execution.row)
        except NotFound as e:
            raise NotFound(f"No such container: {exec_id}") from e
        return execution

    async def start_detached(self, execution: Exec, console_size: tuple[int, int] | None) -> None:
        pending = await self._prepare(execution, console_size)
        await self._go(execution, pending, None)

    async def start_attached(
        self,
        execution: Exec,
        client: AttachStream,
        console_size: tuple[int, int] | None,
        *,
        framed: bool,
    ) -> None:
        """Run it with the client's streams; returns when it has ended or the client is gone.

        :raises TaskFailed: it could not be executed. :raises Conflict: it was started before.
        """
        config = execution.config
        options = AttachOptions(
            stdin=config.attach_stdin,
            stdout=config.attach_stdout,
            stderr=config.attach_stderr,
            framed=framed,
            detach_keys=execution.detach_keys,
        )

        def detached() -> None:
            attributes = event_attributes(execution.row, execID=execution.id)
            self._events.publish("container", "exec_detach", execution.row.id, attributes)

        pending = await self._prepare(execution, console_size)
        with AttachSession(options, on_detach=detached) as session:
            await self._go(execution, pending, session)
            output = asyncio.ensure_future(session.run(client))
            await output
        if not execution.ended.is_set() and not session.detached:
            # The output has ended, so the exit code will follow very soon. Clients ask for it next.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(execution.ended.wait(), 5)

    async def _prepare(self, execution: Exec, console_size: tuple[int, int] | None) -> PendingExec:
        execkeeping.check_new(execution)
        live = self._check_running(execution.row)
        assert live.task is not None
        descriptors.require("exec")
        execution.started = True
        execution.started_at = time.time_ns()
        config, task = execution.config, live.task
        execution.directory = directory = task.directory / "execs" / execution.id

        def work(waiting: PendingExec | None) -> PendingExec:
            pending = waiting or self._monitor(execution, task)
            try:
                spec = process_document(
                    execution.row.record,
                    config,
                    task.directory / "rootfs",
                    self._settings.security,
                    console_size or config.console_size,
                )
                (directory / tasks.PROCESS).write_bytes(spec)
                files.write_atomic(directory / _RECORD, encode(_Record.of(execution)), durable=False)
            except BaseException:
                pending.close()
                raise
            return pending

        try:
            return await threads.runtime(work, await self._monitors.take(execution.id))
        except BaseException:
            await self._failed(execution, execkeeping.EXIT_FAILED)
            raise

    def _monitor(self, execution: Exec, task: Task) -> PendingExec:
        """Start the conmon that will watch it."""
        host, config = execution.row.record.host_config, execution.config
        pending = self._runtimes[host.runtime].prepare_exec(
            execution.row.id,
            execution.id,
            task.directory / "execs" / execution.id,
            Streams(config.tty, config.attach_stdin, stdin_once=True),
            runtime_option(execution.group),
            oom_score_adj=host.oom_score_adj,
        )
        try:
            pending.prepare()
        except BaseException:
            files.remove_tree(pending.directory)
            raise
        return pending

    async def _go(self, execution: Exec, pending: PendingExec, session: AttachSession | None) -> None:
        if session is not None:
            session.connect(pending.directory)
        command = (execution.config.cmd or [])[0]
        try:
            started = await threads.runtime(self._run, execution, pending, command)
        except TaskFailed as e:
            code = execkeeping.failed_code(e.exit_code)
            await self._failed(execution, code)
            raise not_executed(TaskFailed(e.message, code)) from e
        except BaseException:
            await self._failed(execution, execkeeping.EXIT_FAILED)
            raise
        execution.pid = started.pid
        execution.running = True
        execution.ready.set()
        attributes = event_attributes(execution.row, execID=execution.id)
        words = _words(execution.config.cmd or [])
        self._events.publish("container", f"exec_start: {words}", execution.row.id, attributes)
        self._watch(execution, pending.directory, started.conmon_pid)

    def _run(self, execution: Exec, pending: PendingExec, command: str) -> Started:
        path = cgroup_path(execution.row.record, self._settings)
        with self._groups.starting(path, execution.group):
            started = pending.go(command)
            self._groups.claim(path, execution.group, started.pid)
        return started

    async def _failed(self, execution: Exec, code: int) -> None:
        execution.exit_code = code
        execution.ended.set()
        execution.ready.set()
        execution.close()
        if execution.directory is not None:
            await threads.runtime.surely(self._remove, execution)

    def _watch(self, execution: Exec, directory: Path, conmon_pid: int) -> None:
        fd = tasks.conmon_fd(directory, conmon_pid)
        if fd is None:
            self._ended(execution, directory)
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(fd)
            self._watches.pop(fd, None)
            os.close(fd)
            self._ended(execution, directory)

        self._watches[fd] = fd
        loop.add_reader(fd, ended)

    def _ended(self, execution: Exec, directory: Path) -> None:
        found = tasks.read_exit(directory)
        execution.exit_code = found[0] if found is not None else execkeeping.EXIT_UNKNOWN
        execution.running = False
        execution.pid = 0
        execution.ended.set()
        execution.close()
        attributes = event_attributes(execution.row, execID=execution.id, exitCode=str(execution.exit_code))
        self._events.publish("container", "exec_die", execution.row.id, attributes)
        # The client asks for the exit code next, and should not have to wait for this.
        threads.runtime.submit(self._remove, execution)

    def adopt(self, container_id: str) -> None:
        """Find the execs of a container that was started by an earlier daemon; they may have ended since."""
        live = self._live.get(container_id)
        row = self._containers.find(container_id)
        assert live.task is not None
        top = live.task.directory / "execs"
        for directory in sorted(top.iterdir()) if top.is_dir() else ():
            try:
                record = decode((directory / _RECORD).read_bytes(), _Record)
                pid = int((directory / "pid").read_text())
                conmon_pid = int((directory / "conmon.pid").read_text())
            except (OSError, ValueError, WherryError):
                log.info("removed half-made exec %s", directory.name[:12])
                files.remove_tree(directory)
                continue
            execution = record.execution(directory.name, row)
            execution.directory, execution.pid = directory, pid
            self._keep(live, execution)
            if (directory / _TOLD).exists():
                found = tasks.read_exit(directory)
                execution.running, execution.pid, execution.left = False, 0, True
                execution.exit_code = found[0] if found is not None else None
                execution.ended.set()
                execution.close()
                continue
            execution.ready.set()
            self._groups.reclaim(cgroup_path(row.record, self._settings), execution.group, execution.pid)
            self._watch(execution, directory, conmon_pid)
        for name in self._groups.names(cgroup_path(row.record, self._settings)):
            if name.startswith(EXEC) and name not in {e.group for e in self.of(container_id)}:
                self._groups.remove(cgroup_path(row.record, self._settings), name)

    def _keep(self, live: Live, execution: Exec) -> None:
        self._execs[execution.id] = execution
        live.exec_ids.append(execution.id)
        execution.open = live.open_execs
        execution.open[execution.id] = None
        live.on_exit(lambda: self._forget(live, execution))

    def _remove(self, execution: Exec) -> None:
        try:
            self.tidy(execution)
        except OSError as e:
            log.warning("cannot remove exec directory: %s", e)

    def tidy(self, execution: Exec) -> None:
        """Remove an ended exec's cgroup and directory.
        Both stay if it left processes running in the background."""
        path = cgroup_path(execution.row.record, self._settings)
        execution.left = not self._groups.remove(path, execution.group)
        if execution.directory is None:
            return
        if execution.left:
            (execution.directory / _TOLD).touch()
        else:
            files.remove_tree(execution.directory)

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Resize the terminal. An exec that is about to start is waited for."""
        execution = self.find(exec_id)
        try:
            await asyncio.wait_for(execution.ready.wait(), _READY_WITHIN)
        except TimeoutError as e:
            raise Internal("timeout waiting for exec session ready").as_expected() from e
        if not execution.running or execution.directory is None:
            raise Conflict(f"exec {exec_id} is not running")
        tasks.resize(execution.directory, height=height, width=width)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for fd in list(self._watches):
            loop.remove_reader(fd)
            os.close(fd)
        self._watches.clear()
        self._monitors.close()


def _words(command: Sequence[str]) -> str:
    """A command in an event, as Docker writes it: there is a blank behind a program without arguments too."""
    return f"{command[0]} {' '.join(command[1:])}"
