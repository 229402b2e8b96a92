"""Start-up: compare the rows with the processes and files that exist; one log line for each difference.

Before the API answers, all states are corrected (:meth:`Reconciler.run`). While it answers, the slower work
for each container follows (:meth:`Reconciler.resume`, ``adoption``), and then the restart policies.

row running, conmon runs                adopt: watch it again; attach and exec work
row running, conmon recorded an exit    record the exit in the row, then apply the restart policy
row running, no task                    the host was restarted: exit code 255, then apply the restart policy
row running, cgroup frozen              a commit was interrupted: thaw the container
row not running, task exists            a daemon was killed during a start or exit: remove the task
task without a row                      sweep
layer or directory without a row        take up, set aside or sweep: ``takeup.py``
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import bundle
from wherry.engine.containers.endings import UNKNOWN
from wherry.engine.containers.leftovers import Leftovers
from wherry.engine.containers.lifecycle import Lifecycle
from wherry.engine.containers.removal import Removal
from wherry.engine.ground import Ground, Stores
from wherry.engine.live import Exit, Task
from wherry.engine.logs.keeping import LogKeeping
from wherry.engine.mounts.holds import Holds
from wherry.engine.upkeep import dependencies, startup
from wherry.engine.upkeep.adoption import Adoption
from wherry.engine.upkeep.dependencies import Need
from wherry.engine.upkeep.startup import LIVING, TaskEnd, Then
from wherry.engine.upkeep.takeup import TakeUp
from wherry.errors import NotFound, NotModified
from wherry.linux import cgroups
from wherry.mishaps import contained
from wherry.runtime import task as tasks
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

_PATIENCE = 300.0
"""Seconds that a container waits for its dependencies; then it starts without them."""
_AGAIN = 5.0
"""Seconds between two attempts to inspect a container after an error."""


class Reconciler:
    def __init__(
        self,
        ground: Ground,
        stores: Stores,
        *,
        holds: Holds,
        lifecycle: Lifecycle,
        removal: Removal,
        leftovers: Leftovers,
        logs: LogKeeping,
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._snapshotter = stores.snapshotter
        self._volumes = stores.volumes
        self._volume_versions = stores.volume_versions
        self._network = stores.network
        self._runtimes = stores.runtimes
        self._lifecycle = lifecycle
        self._removal = removal
        self._leftovers = leftovers
        self._logs = logs
        self._events = ground.events
        self._live = ground.live
        self._takeup = TakeUp(ground, stores, holds=holds)
        self._unknown: set[str] = set()
        """Containers whose state is unknown because an error prevented their inspection. Nothing is done to
        them."""
        self._closing = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        """Tasks that start a container after its dependencies."""
        self.adoption = Adoption(ground, self._take)

    async def take_up(self) -> None:
        """Restore lost rows, and do nothing else."""
        await threads.disk(self._takeup.run)
        for line in await threads.disk(self._volume_versions.sweep):
            log.info("%s", line)

    async def run(self) -> None:
        """Called before the API answers: afterwards every row describes its container's real state.

        The slower work for each container is left to :meth:`resume`.
        """
        await threads.disk(self._takeup.run)
        adopted: dict[str, Task] = {}
        rows = self._containers.all()
        self._unknown = {row.id for row in rows if row.state.status in LIVING}
        for row in rows:
            with contained(f"find out whether container {row.id[:12]} runs", partial(self._note, row.id)):
                task = self._adoptable(row)
                if task is not None:
                    adopted[row.id] = task
                self._unknown.discard(row.id)
        pids = {**dict.fromkeys(self._unknown, 0), **{one: task.pid for one, task in adopted.items()}}
        for line in await threads.runtime(self._network.take_over, pids):
            log.info("%s", line)
        left, ended = await threads.runtime(self._survey_tasks, adopted.keys() | self._unknown)
        for row in self._containers.all():
            with contained(f"take up container {row.id[:12]}", partial(self._note, row.id)):
                self._take_up(row, adopted.get(row.id), ended.get(row.id))
        await threads.disk(self._sweep_storage)
        self.adoption.begin([*left, *(one for one in adopted if one not in self._unknown)])

    def _take_up(self, row: ContainerRow, task: Task | None, ended: TaskEnd | None) -> None:
        if task is not None:
            self._adopt(row, task)
        elif row.id not in self._unknown:
            self._settle(row, ended)
            self._logs.stopped(row)

    def _try_later(self, container_id: str) -> None:
        """Try again later to adopt a container, after an error."""
        self._lifecycle.let_go(container_id)
        self._unknown.add(container_id)

    def _note(self, container_id: str, reason: str) -> None:
        row = self._containers.find(container_id)
        self._containers.set_state(container_id, replace(row.state, error=reason))

    def _adoptable(self, row: ContainerRow) -> Task | None:
        if row.state.status not in LIVING:
            return None
        directory = self._settings.task_directory(row.id)
        conmon_fd = tasks.conmon_fd(directory, row.state.conmon_pid)
        if conmon_fd is None:
            return None
        process_fd = tasks.process_fd(row.state.pid)
        if process_fd is None or tasks.read_exit(directory) is not None:
            # It has just ended; conmon has recorded the exit, or is about to.
            process_fd = process_fd if process_fd is not None else os.dup(conmon_fd)
        return Task(directory, row.state.pid, row.state.conmon_pid, process_fd, conmon_fd)

    def _adopt(self, row: ContainerRow, task: Task) -> None:
        """Mark the container as running; :meth:`_watch` does the rest."""
        try:
            self._lifecycle.hold(row, task)
            path = bundle.cgroup_path(row.record, self._settings)
            state, thaw = startup.adopted(row.state, frozen=cgroups.is_frozen(path))
            if thaw:
                cgroups.thaw(path)
                log.info("thawed container %s (%s)", row.id[:12], row.name)
            if state != row.state:
                self._containers.set_state(row.id, state)
        except BaseException:
            self._try_later(row.id)
            raise

    async def _take(self, container_id: str) -> None:
        """Watch a container that was adopted, or remove the task of one that ended."""
        live = self._live.get(container_id)
        async with live.lock:
            if live.task is not None:
                with contained(f"take up container {container_id[:12]}", partial(self._note, container_id)):
                    await self._watch(container_id, live.task)
            elif container_id not in self._unknown:
                with contained(f"remove the task {container_id[:12]}"):
                    await threads.runtime.to_end(self._sweep_task, container_id)

    async def _watch(self, container_id: str, task: Task) -> None:
        try:
            for line in await threads.runtime.to_end(self._network.sandboxes.resume, container_id):
                log.info("%s", line)
            row = self._containers.find(container_id)
            self._lifecycle.watch(row, task, adopted=True)
        except BaseException:
            self._try_later(container_id)
            raise
        log.info("adopted container %s (%s)", row.id[:12], row.name)

    def _settle(self, row: ContainerRow, ended: TaskEnd | None) -> None:
        """Correct a row that no longer describes the container's real state."""
        state, is_news = startup.settled(row.state, ended, time.time_ns())
        if state == row.state:
            return
        self._containers.set_state(row.id, state)
        if is_news:
            code = state.exit_code
            self._events.publish("container", "die", row.id, event_attributes(row, exitCode=str(code)))
            log.info("container %s (%s) ended while no daemon ran: exit %d", row.id[:12], row.name, code)
        self._live.get(row.id).last_exit = Exit(UNKNOWN if ended is None else ended.exit_code)

    def _survey_tasks(self, adopted: Set[str]) -> tuple[list[str], dict[str, TaskEnd]]:
        """Kill everything that runs without an adopted container, and remove half-made tasks: build steps,
        starts and exits that a killed daemon did not finish. Nothing may use layers and volumes when they are
        swept afterwards.

        :returns: the containers whose ended tasks must be removed later, and how they ended, if known.
        """
        ended: dict[str, TaskEnd] = {}
        directory = self._settings.run / "tasks"
        present = {entry.name for entry in os.scandir(directory)} if directory.is_dir() else set()
        for runtime in self._runtimes.values():
            present |= set(runtime.known())
        left = {row.id: row for row in self._containers.all() if row.state.status in LIVING}
        for container_id in sorted((present | left.keys()) - adopted):
            if self._settings.is_strange(directory / container_id):
                log.warning("task %s belongs to another daemon; it was not touched", container_id[:12])
                left.pop(container_id, None)
                continue
            with contained(f"end what is left of container {container_id[:12]}"):
                if container_id in left:
                    self._leftovers.kill(left[container_id])
                else:
                    self._sweep_task(container_id)
            if container_id in left and (how := self._how_it_ended(container_id)) is not None:
                ended[container_id] = how
        return [container_id for container_id in left if container_id not in adopted], ended

    def _how_it_ended(self, container_id: str) -> TaskEnd | None:
        directory = self._settings.task_directory(container_id)
        found = tasks.read_exit(directory)
        return None if found is None else TaskEnd(*found, tasks.was_oom_killed(directory))

    def _sweep_task(self, container_id: str) -> None:
        is_half_made = (
            self._settings.task_directory(container_id).is_dir() and self._how_it_ended(container_id) is None
        )
        self._leftovers.remove(container_id)
        if is_half_made:
            log.info("removed half-made task %s", container_id[:12])

    def _sweep_storage(self) -> None:
        with contained("sweep what is left of containers"):
            self._takeup.sweep()
        for sweep in (self._volumes.sweep, self._volume_versions.sweep):
            with contained("sweep the volumes"):
                for line in sweep():
                    log.info("%s", line)

    async def resume(self) -> None:
        """While the API answers: adopt the running containers and remove the leftovers of the ended ones.
        Then apply restart policies and auto-removal to containers that ended while no daemon ran."""
        await self.adoption.run()
        await self._restart_all()
        while self._unknown and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _AGAIN)
                return
            for container_id in list(self._unknown):
                with contained(f"take up container {container_id[:12]}"):
                    await self._take_up_late(container_id)

    async def _restart_all(self) -> None:
        """Apply the restart policies one after the other, each container after its dependencies. A container
        that waits for others does not delay the rest."""
        rows = self._containers.all()
        waits = dependencies.needs(rows)
        done = {row.id: asyncio.Event() for row in rows}
        for row in dependencies.order(rows, waits):
            if self._closing.is_set():
                return
            if row.id in self._unknown:
                done[row.id].set()
            elif row.id in waits and self._then(row) is Then.START:
                task = asyncio.create_task(self._restart_after(row.id, waits[row.id], done))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
            else:
                await self._restart(row.id)
                done[row.id].set()
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def _restart_after(
        self, container_id: str, needs: Sequence[Need], done: Mapping[str, asyncio.Event]
    ) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                for need in needs:
                    await done[need.container_id].wait()
                    await self._until(need)
        except TimeoutError:
            log.warning(
                "container %s: its dependencies are not %s after %d s; starting it without them",
                container_id[:12], " or ".join(sorted({need.condition for need in needs})), _PATIENCE,
            )  # fmt: skip
        await self._restart(container_id)
        done[container_id].set()

    async def _until(self, need: Need) -> None:
        """Return when the condition is true, or cannot become true any more."""
        async with self._events.subscribe() as news:
            while True:
                try:
                    state = self._containers.by_id(need.container_id).state
                except NotFound:
                    return
                live = self._live.get(need.container_id)
                if (
                    live.health is not None
                ):  # the health of this run; the row may still have that of the last run
                    state = replace(state, health=live.health)
                if dependencies.is_over(need.condition, state, runs=live.task is not None):
                    return
                async for event in news.until(None):
                    if event.actor == need.container_id:
                        break
                else:
                    return  # the daemon stops

    async def close(self) -> None:
        """Start nothing more, because the daemon stops."""
        self._closing.set()
        for task in self._waiting:
            task.cancel()
        await self.adoption.close()

    async def _take_up_late(self, container_id: str) -> None:
        """Inspect a container again that could not be inspected at start-up (for example: no free
        descriptor)."""
        async with self._live.get(container_id).lock:
            try:
                row = self._containers.find(container_id)
            except NotFound:
                self._unknown.discard(container_id)
                return
            task = self._adoptable(row)
            self._unknown.discard(container_id)
            if task is not None:
                self._adopt(row, task)
                await self._watch(container_id, task)
            else:
                self._settle(row, await threads.runtime.to_end(self._end, row))
                self._logs.stopped(row)
        await self._restart(container_id)

    def _end(self, row: ContainerRow) -> TaskEnd | None:
        self._leftovers.kill(row)
        how = self._how_it_ended(row.id)
        self._sweep_task(row.id)
        self._network.sandboxes.delete(row.id)
        return how

    def _then(self, row: ContainerRow) -> Then:
        runs = self._live.get(row.id).task is not None
        return startup.then(row.record.host_config, row.state, runs=runs)

    async def _restart(self, container_id: str) -> None:
        with (
            contained(f"restart container {container_id[:12]}", partial(self._note, container_id)),
            suppress(NotFound, NotModified),  # a client has removed or started it meanwhile
        ):
            row = self._containers.by_id(container_id)
            what = self._then(row)
            if what is Then.REMOVE:
                await self._removal.remove(row.id, force=True, volumes=True)
            elif what is Then.START:
                await self._lifecycle.start(row.id)
                log.info("restarted container %s (%s)", row.id[:12], row.name)
