"""Start-up: rows compared with what lives, one log line for each thing found.

row says running, conmon lives        adopted: watched again, attach and exec work
row says running, conmon left a status  the exit is recorded now, then the restart policy decides
row says running, nothing is there    the machine was restarted: exit 255, then the restart policy
row says running, it is frozen         held still for a commit that was cut short: thawed
row says otherwise, a task is there   a start or exit that a killed daemon left half done: removed
a task, layer or directory without a row  swept
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence

from msgspec.structs import replace

from wherry.engine import bundle
from wherry.engine.attributes import event_attributes
from wherry.engine.events import EventBus
from wherry.engine.holds import Holds, owner_of
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.live import Exit, LiveSet, Task
from wherry.engine.logkeeping import LogKeeping
from wherry.engine.removal import Removal
from wherry.engine.settings import Settings
from wherry.errors import NotFound, WherryError
from wherry.linux import cgroups, files, mounts
from wherry.network.manager import NetworkManager
from wherry.runtime import task as tasks
from wherry.runtime.task import Runtime
from wherry.state.containers import ContainerRow, Containers
from wherry.storage.snapshots import ACTIVE, Snapshotter
from wherry.volumes.store import VolumeStore
from wherry.volumes.versions import VolumeVersions

log = logging.getLogger(__name__)

_LIVING = ("running", "paused")


class Reconciler:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        snapshotter: Snapshotter,
        volumes: VolumeStore,
        volume_versions: VolumeVersions,
        holds: Holds,
        network: NetworkManager,
        runtimes: dict[str, Runtime],
        lifecycle: Lifecycle,
        removal: Removal,
        logs: LogKeeping,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._volume_versions = volume_versions
        self._holds = holds
        self._network = network
        self._runtimes = runtimes
        self._lifecycle = lifecycle
        self._removal = removal
        self._logs = logs
        self._events = events
        self._live = live

    async def run(self) -> None:
        """Before the API answers. What must start again is started afterwards, by :meth:`restart`."""
        adopted: dict[str, Task] = {}
        for row in self._containers.all():
            task = self._adoptable(row)
            if task is not None:
                adopted[row.id] = task
        for line in await asyncio.to_thread(
            self._network.restore, {container_id: task.pid for container_id, task in adopted.items()}
        ):
            log.info("%s", line)
        await asyncio.to_thread(self._sweep_tasks, set(adopted))
        for row in self._containers.all():
            if row.id in adopted:
                self._adopt(row, adopted[row.id])
            elif row.state.status not in ("created", "exited"):
                await self._settle(row)
            if row.id not in adopted:
                self._logs.stopped(row)
        await asyncio.to_thread(self._sweep_storage)

    def _adoptable(self, row: ContainerRow) -> Task | None:
        if row.state.status not in _LIVING:
            return None
        directory = self._settings.task_directory(row.id)
        conmon_fd = tasks.conmon_fd(directory, row.state.conmon_pid)
        if conmon_fd is None:
            return None
        process_fd = tasks.process_fd(row.state.pid)
        if process_fd is None or tasks.read_exit(directory) is not None:
            # It ended in this very moment; conmon has written, or is about to write, how.
            process_fd = process_fd if process_fd is not None else os.dup(conmon_fd)
        return Task(directory, row.state.pid, row.state.conmon_pid, process_fd, conmon_fd)

    def _adopt(self, row: ContainerRow, task: Task) -> None:
        path = bundle.cgroup_path(row.record, self._settings)
        paused = cgroups.is_frozen(path)
        if paused and row.state.status == "running":
            # A daemon was killed while it held the container still, for a commit: no user paused it.
            cgroups.thaw(path)
            paused = False
            log.info("thawed container %s (%s)", row.id[:12], row.name)
        status = "paused" if paused else "running"
        if status != row.state.status:
            self._containers.set_state(row.id, replace(row.state, status=status))
        self._lifecycle.watch(row, task, adopted=True)
        log.info("adopted container %s (%s)", row.id[:12], row.name)

    async def _settle(self, row: ContainerRow) -> None:
        """A row that says more than is true any more."""
        exit_code, finished = 255, time.time_ns()
        found = self._exits.get(row.id)
        if found is not None:
            exit_code, finished, oom = found
        else:
            oom = False
        if row.state.status in _LIVING:
            state = replace(
                row.state,
                status="exited",
                pid=0,
                conmon_pid=0,
                exit_code=exit_code,
                finished_at=finished,
                oom_killed=oom,
            )
            self._containers.set_state(row.id, state)
            self._events.publish("container", "die", row.id, event_attributes(row, exitCode=str(exit_code)))
            log.info("container %s (%s) ended while no daemon ran: exit %d", row.id[:12], row.name, exit_code)
        else:
            self._containers.set_state(row.id, replace(row.state, status="exited", pid=0, conmon_pid=0))
        self._live.get(row.id).last_exit = Exit(exit_code)

    def _sweep_tasks(self, adopted: set[str]) -> None:
        """End and remove every task that no adopted container owns; remember how it ended."""
        self._exits: dict[str, tuple[int, int, bool]] = {}
        directory = self._settings.run / "tasks"
        present = {entry.name for entry in os.scandir(directory)} if directory.is_dir() else set()
        for runtime in self._runtimes.values():
            present |= set(runtime.known())
        made = {directory / name for name in present}
        for row in self._containers.all():
            if row.state.status in _LIVING and row.id not in adopted:
                present.add(row.id)
                self._kill_orphans(row)
        for container_id in sorted(present - adopted):
            task_directory = directory / container_id
            found = tasks.read_exit(task_directory)
            if found is not None:
                self._exits[container_id] = (*found, tasks.was_oom_killed(task_directory))
            self._end_task(container_id)
            if found is None and task_directory in made:
                log.info("removed half-made task %s", container_id[:12])

    def _kill_orphans(self, row: ContainerRow) -> None:
        """What runs on though nobody watches it: its conmon is gone, or its runtime directory."""
        try:
            count = cgroups.kill(bundle.cgroup_path(row.record, self._settings))
        except OSError as e:
            log.warning("cannot end what is left of container %s: %s", row.id[:12], e)
            return
        if count:
            log.info("ended %d orphan processes of container %s (%s)", count, row.id[:12], row.name)

    def _end_task(self, container_id: str) -> None:
        task_directory = self._settings.run / "tasks" / container_id
        for runtime in self._runtimes.values():
            try:
                runtime.delete(container_id)
            except WherryError as e:
                log.warning("%s", e.message)
        self._kill_conmon(container_id)
        for target in mounts.mounts_below(task_directory):
            mounts.unmount(target)
        try:
            row = self._containers.find(container_id)
            bundle.release(row.record, self._settings)
        except NotFound:
            files.remove_tree(task_directory)
            _remove_cgroup(f"/{self._settings.cgroup_parent.strip('/')}/{container_id}")
        except OSError as e:
            log.warning("cannot clean up task %s: %s", container_id[:12], e)

    def _kill_conmon(self, container_id: str) -> None:
        """A conmon whose container never ran would otherwise wait for it for ever."""
        directory = self._settings.run / "tasks" / container_id
        try:
            pid = int((directory / "conmon.pid").read_text())
        except (OSError, ValueError):
            return
        fd = tasks.conmon_fd(directory, pid)
        if fd is not None:
            tasks.send_signal(fd, signal.SIGKILL)
            os.close(fd)

    def _sweep_storage(self) -> None:
        """Layers, directories and volume holds of containers that have no row."""
        known = {row.id for row in self._containers.all()}
        for snapshot in self._snapshotter.walk():
            owner = snapshot.key if snapshot.kind == ACTIVE else owner_of(snapshot)
            if owner is not None and _is_id(owner) and owner not in known:
                self._snapshotter.remove(snapshot.key)
                log.info("removed orphan layer %s", snapshot.key[:12])
        directory = self._settings.root / "containers"
        for entry in os.scandir(directory) if directory.is_dir() else ():
            if entry.name not in known:
                files.remove_tree(directory / entry.name)
                log.info("removed orphan directory %s", entry.name[:12])
        for line in self._holds.sweep(known):
            log.info("%s", line)
        for line in (*self._volumes.sweep(), *self._volume_versions.sweep()):
            log.info("%s", line)

    async def restart(self) -> None:
        """Apply restart policies and auto-removal to what ended while no daemon ran."""
        for row in dependencies_first(self._containers.all()):
            if self._live.get(row.id).task is not None or row.state.status == "created":
                continue
            host = row.record.host_config
            if host.auto_remove and not row.state.comes_back:
                await self._removal.remove(row.id, force=True, volumes=True)
                continue
            policy = host.restart_policy.name
            wanted = policy == "always" or (policy == "unless-stopped" and not row.state.manually_stopped)
            if policy == "on-failure" and row.state.exit_code and not row.state.manually_stopped:
                wanted = True
            if not wanted and not row.state.comes_back:
                continue
            try:
                await self._lifecycle.start(row.id)
                log.info("restarted container %s (%s)", row.id[:12], row.name)
            except WherryError as e:
                log.warning("cannot restart container %s: %s", row.id[:12], e.message)


def dependencies_first(rows: Sequence[ContainerRow]) -> list[ContainerRow]:
    """Oldest first, but none before those it links or whose namespaces it joins."""
    by_key = {key: row for row in rows for key in (row.id, row.name)}
    ordered: dict[str, ContainerRow] = {}

    def visit(row: ContainerRow, above: frozenset[str]) -> None:
        host = row.record.host_config
        modes = (host.network_mode, host.ipc_mode, host.pid_mode)
        joined = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
        for key in (*row.record.links.values(), *joined):
            other = by_key.get(key)
            if other is not None and other.id not in above:  # a circle cannot be put in order
                visit(other, above | {row.id})
        ordered.setdefault(row.id, row)

    for row in sorted(rows, key=lambda r: r.record.created):
        visit(row, frozenset((row.id,)))
    return list(ordered.values())


def _is_id(key: str) -> bool:
    return len(key) == 64 and all(c in "0123456789abcdef" for c in key)


def _remove_cgroup(path: str) -> None:
    try:
        cgroups.remove(path)
    except OSError as e:
        log.warning("cannot remove cgroup %s: %s", path, e)
