"""Execs: further processes in a running container, each under a conmon of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from wherry.engine.attach import AttachOptions, AttachSession, ClientStream
from wherry.engine.attributes import event_attributes
from wherry.engine.bundle import cgroup_path
from wherry.engine.events import EventBus
from wherry.engine.execspec import process_document
from wherry.engine.live import Live, LiveSet
from wherry.engine.names import new_id
from wherry.engine.normalise import as_list
from wherry.engine.settings import Settings
from wherry.engine.warmup import expect_start
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.linux import files
from wherry.linux.execgroups import EXEC, ExecGroups, runtime_option
from wherry.model.base import Value, decode, encode
from wherry.model.exec import ExecConfig
from wherry.model.views import ExecView
from wherry.runtime import task as tasks
from wherry.runtime.task import PendingExec, Runtime, Started, Streams, TaskFailed
from wherry.state.containers import ContainerRow, Containers

log = logging.getLogger(__name__)

_KEEP_ENDED = 256
"""Ended execs whose result can still be asked for, per container."""

_KEEP_WAITING = 1024
_KEEP_WAITING_SIZE = 16 << 20
"""Execs that nobody has started yet, per container, and the bytes their configurations may have together: a
client can make any number of them (CVE-2025-64329), so the oldest are forgotten."""

_KEEP_AFTER = 300.0
"""Seconds that an exec is known after its container's end."""

_RECORD, _TOLD = "exec.json", "told"
_EXIT_FAILED = 126
"""What Docker says of an exec that could not begin, where a container's start says 128."""


@dataclass
class Exec:
    """One exec. ``ended`` is set with its exit code.

    :ivar started_at: nanoseconds since the epoch. :ivar left: its first process has ended, others run on.
    :ivar size: bytes of its configuration.
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
    directory: Path | None = None
    started_at: int = 0
    left: bool = False
    size: int = 0

    @property
    def group(self) -> str:
        """Its cgroup below the container's."""
        return f"{EXEC}{self.id[:16]}"


class _Record(Value, frozen=True, kw_only=True):
    """``exec.json`` in an exec's directory: what a daemon started later must know of it."""

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
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        runtimes: dict[str, Runtime],
        events: EventBus,
        live: LiveSet,
        groups: ExecGroups,
    ) -> None:
        self._settings = settings
        self._groups = groups
        self._containers = containers
        self._runtimes = runtimes
        self._events = events
        self._live = live
        self._execs: dict[str, Exec] = {}
        self._watches: dict[int, int] = {}

    def create(self, wanted: str, config: ExecConfig, detach_keys: bytes) -> str:
        """:raises Conflict: the container does not run, or is paused."""
        row = self._containers.find(wanted)
        self._check_running(row)
        if not as_list(config.cmd):
            raise InvalidArgument("No exec command specified")
        expect_start()
        execution = Exec(new_id(), row, config, detach_keys, size=len(encode(config)))
        live = self._live.get(row.id)
        self._keep(live, execution)
        self._forget_old(live)
        command = " ".join(as_list(config.cmd))
        self._events.publish(
            "container", f"exec_create: {command}", row.id, event_attributes(row, execID=execution.id)
        )
        return execution.id

    def _check_running(self, row: ContainerRow) -> Live:
        live = self._live.get(row.id)
        if live.task is None:
            raise Conflict(f"container {row.id} is not running")
        if self._containers.find(row.id).state.status == "paused":
            raise Conflict(f"container {row.id} is paused, unpause the container before exec")
        return live

    def _forget_old(self, live: Live) -> None:
        ended = [
            i for i in live.exec_ids if (e := self._execs.get(i)) and e.started and not (e.running or e.left)
        ]
        for exec_id in (*ended[:-_KEEP_ENDED], *self._waited_too_long(live)):
            live.exec_ids.remove(exec_id)
            self._execs.pop(exec_id, None)

    def _waited_too_long(self, live: Live) -> list[str]:
        """Execs that were never started, but for the newest that fit the bounds."""
        waiting = [e for i in live.exec_ids if (e := self._execs.get(i)) and not e.started]
        size, kept = 0, 0
        for execution in reversed(waiting):
            size += execution.size
            if kept and (kept == _KEEP_WAITING or size > _KEEP_WAITING_SIZE):
                break
            kept += 1
        return [e.id for e in waiting[: len(waiting) - kept]]

    def _forget(self, live: Live, execution: Exec) -> None:
        if execution.id in live.exec_ids:
            live.exec_ids.remove(execution.id)
        # Whoever waited for it asks for its exit code once more, and then nobody does.
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
        return self.view(self.find(exec_id))

    @staticmethod
    def view(execution: Exec) -> ExecView:
        command = as_list(execution.config.cmd)
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
        """Check that it can start, before a client's connection is taken over.

        :raises Conflict: it ran already, or the container has stopped.
        """
        execution = self.find(exec_id)
        if execution.started:
            raise Conflict(f"exec command {exec_id} has already run")
        self._check_running(execution.row)
        return execution

    async def start_detached(self, execution: Exec, console_size: tuple[int, int] | None) -> None:
        pending = await self._prepare(execution, console_size)
        await self._go(execution, pending, None)

    async def start_attached(
        self, execution: Exec, client: ClientStream, console_size: tuple[int, int] | None
    ) -> None:
        """Run it with the client's streams; returns when it has ended or the client is gone.

        :raises TaskFailed: it could not be executed.
        """
        config = execution.config
        options = AttachOptions(
            stdin=config.attach_stdin,
            stdout=config.attach_stdout,
            stderr=config.attach_stderr,
            framed=not config.tty,
            detach_keys=execution.detach_keys,
        )

        def detached() -> None:
            attributes = event_attributes(execution.row, execID=execution.id)
            self._events.publish("container", "exec_detach", execution.row.id, attributes)

        pending = await self._prepare(execution, console_size)
        session = AttachSession(options, on_detach=detached)
        await self._go(execution, pending, session)
        output = asyncio.ensure_future(session.run(client))
        await output
        if not execution.ended.is_set() and not session.detached:
            # The output ended, so the exit code is moments away: clients ask for it next.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(execution.ended.wait(), 5)

    async def _prepare(self, execution: Exec, console_size: tuple[int, int] | None) -> PendingExec:
        live = self._check_running(execution.row)
        assert live.task is not None
        execution.started = True
        execution.started_at = time.time_ns()
        runtime = self._runtimes[execution.row.record.host_config.runtime]
        config = execution.config
        directory = live.task.directory / "execs" / execution.id
        execution.directory = directory
        rootfs = live.task.directory / "rootfs"
        streams = Streams(config.tty, config.attach_stdin, stdin_once=True)

        def work() -> PendingExec:
            spec = process_document(execution.row.record, config, rootfs, console_size or config.console_size)
            pending = runtime.prepare_exec(
                execution.row.id,
                execution.id,
                directory,
                spec,
                streams,
                runtime_option(execution.group),
            )
            files.write_atomic(directory / _RECORD, encode(_Record.of(execution)), durable=False)
            pending.prepare()
            return pending

        try:
            return await asyncio.to_thread(work)
        except BaseException:
            await self._failed(execution, _EXIT_FAILED)
            raise

    async def _go(self, execution: Exec, pending: PendingExec, session: AttachSession | None) -> None:
        if session is not None:
            session.connect(pending.directory)
        command = as_list(execution.config.cmd)[0]
        try:
            started = await asyncio.to_thread(self._run, execution, pending, command)
        except TaskFailed as e:
            code = _EXIT_FAILED if e.exit_code == tasks.EXIT_FAILED else e.exit_code
            await self._failed(execution, code)
            raise TaskFailed(f"OCI runtime exec failed: {e.message}", code) from e
        except BaseException:
            await self._failed(execution, _EXIT_FAILED)
            raise
        execution.pid = started.pid
        execution.running = True
        attributes = event_attributes(execution.row, execID=execution.id)
        words = " ".join(as_list(execution.config.cmd))
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
        if execution.directory is not None:
            await asyncio.to_thread(self._remove, execution)

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
        execution.exit_code = found[0] if found is not None else 137
        execution.running = False
        execution.pid = 0
        execution.ended.set()
        attributes = event_attributes(execution.row, execID=execution.id, exitCode=str(execution.exit_code))
        self._events.publish("container", "exec_die", execution.row.id, attributes)
        # The client asks for the exit code next, and need not wait for this.
        asyncio.get_running_loop().run_in_executor(None, self._remove, execution)

    def adopt(self, container_id: str) -> None:
        """Find the execs of a container that ran before this daemon did; they may have ended since."""
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
                continue
            self._groups.reclaim(cgroup_path(row.record, self._settings), execution.group, execution.pid)
            self._watch(execution, directory, conmon_pid)
        for name in self._groups.names(cgroup_path(row.record, self._settings)):
            if name.startswith(EXEC) and name not in {e.group for e in self.of(container_id)}:
                self._groups.remove(cgroup_path(row.record, self._settings), name)

    def _keep(self, live: Live, execution: Exec) -> None:
        self._execs[execution.id] = execution
        live.exec_ids.append(execution.id)
        live.on_exit(lambda: self._forget(live, execution))

    def _remove(self, execution: Exec) -> None:
        try:
            self.tidy(execution)
        except OSError as e:
            log.warning("cannot remove exec directory: %s", e)

    def tidy(self, execution: Exec) -> None:
        """Remove an ended exec's group and directory; what it left running in the background keeps both."""
        path = cgroup_path(execution.row.record, self._settings)
        execution.left = not self._groups.remove(path, execution.group)
        if execution.directory is None:
            return
        if execution.left:
            (execution.directory / _TOLD).touch()
        else:
            files.remove_tree(execution.directory)

    def resize(self, exec_id: str, *, height: int, width: int) -> None:
        execution = self.find(exec_id)
        if not execution.running or execution.directory is None:
            raise Conflict(f"exec {exec_id} is not running")
        tasks.resize(execution.directory, height=height, width=width)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for fd in list(self._watches):
            loop.remove_reader(fd)
            os.close(fd)
        self._watches.clear()
