"""Operations on a running container: signal, stop, pause, resize, wait."""

from __future__ import annotations

import asyncio
import signal

from msgspec.structs import replace

from wherry.engine.attributes import event_attributes
from wherry.engine.containers import bundle, endings
from wherry.engine.containers.endings import Waits
from wherry.engine.containers.lifecycle import Lifecycle
from wherry.engine.ground import Ground
from wherry.engine.live import Exit, Live, Task
from wherry.errors import Conflict, Internal, InvalidArgument, NotModified
from wherry.linux import cgroups
from wherry.runtime import task as tasks
from wherry.state.containers import ContainerRow


class Control:
    """The lifecycle handles the exits that these cause. Each operation first waits for a start under way."""

    def __init__(self, ground: Ground, *, lifecycle: Lifecycle) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._lifecycle = lifecycle
        self._events = ground.events
        self._live = ground.live

    # ---- stop, kill, restart ---------------------------------------------------------------------------

    async def stop(
        self,
        wanted: str,
        *,
        timeout: int | None = None,
        signal_name: str | None = None,
        restart_after: float | None = None,
    ) -> None:
        """Send the stop signal, wait, then kill. ``timeout`` in seconds; -1: wait for ever; ``None``: the
        container's own timeout.

        :param restart_after: start it again this many seconds after its exit, unless it is stopped again
            meanwhile.
        :raises NotModified: it is not running.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        try:
            rounds = endings.stop_rounds(row.record.config, timeout=timeout, signal_name=signal_name)
        except InvalidArgument as e:
            raise InvalidArgument(f"cannot stop container: {wanted}: {e.message}") from e
        await self.until_started(live)
        row = self._containers.find(row.id)
        live.restart_after = restart_after
        if self._lifecycle.cancel_restart(live):
            self._containers.set_state(row.id, endings.without_restart(row.state))
            live.exited(live.last_exit)
            return
        task = live.task
        if task is None:
            raise NotModified("container already stopped")
        live.stopping = True
        exited = live.next_exit()
        await self._thaw_for_signal(row)
        for each in rounds:
            self._signal(row, task, each.signal)
            if await _within(exited, each.seconds):
                self._events.publish("container", "stop", row.id, event_attributes(row))
                return
        live.stopping = False
        seconds = f"{rounds[-1].seconds:.0f} s"
        raise Internal(f"cannot stop container {wanted}: it did not end within {seconds} of SIGKILL")

    async def kill(self, wanted: str, signal_name: str = "KILL") -> None:
        """:raises Conflict: it is not running."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        plan = endings.kill(row.record.config, signal_name)
        await self.until_started(live)
        row = self._containers.find(row.id)
        if live.task is None:
            if row.state.status == "restarting" and self._lifecycle.cancel_restart(live):
                self._containers.set_state(row.id, endings.without_restart(row.state))
                return
            raise Conflict(f"cannot kill container: {wanted}: container {row.id} is not running")
        if plan.counts_as_stop:
            live.stopping = True
            live.restart_after = None
        exited = live.next_exit()
        self._signal(row, live.task, plan.signal)
        if plan.thaws:
            await self._thaw_for_signal(row)
        if plan.seconds and not await _within(exited, plan.seconds):
            raise Internal(f"cannot kill container: {wanted}: it did not end within {plan.seconds:.0f} s")

    async def restart(
        self, wanted: str, *, timeout: int | None = None, signal_name: str | None = None
    ) -> None:
        """Stop it if it runs, and start it. A container with ``--rm`` is not removed by this stop."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        live.coming_back = True
        try:
            try:
                await self.stop(row.id, timeout=timeout, signal_name=signal_name)
            except NotModified:
                pass
            await self._lifecycle.start(row.id)
        finally:
            live.coming_back = False
        self._events.publish("container", "restart", row.id, event_attributes(row))

    async def end_unhealthy(self, container_id: str, action: str, delay: float) -> None:
        """Carry out a health check's ``on_failure``: ``stop``; ``kill``, which counts as an exit of its own,
        so the restart policy decides; or ``restart``, with ``delay`` seconds between end and start.

        :raises NotModified: it is not running any more.
        """
        row = self._containers.find(container_id)
        live = self._live.get(container_id)
        if live.task is None:
            raise NotModified("container already stopped")
        if action == "kill":
            self._signal(row, live.task, signal.SIGKILL)
            await self._thaw_for_signal(row)
        elif action == "stop":
            await self.stop(container_id)
        else:
            # If the daemon stops in between, the row says that the container is to be started again.
            self._containers.set_state(container_id, replace(row.state, comes_back=True))
            await self.stop(container_id, restart_after=delay)

    @staticmethod
    async def until_started(live: Live) -> None:
        """Wait for a start under way: its process runs already, but it cannot be signalled yet."""
        runs, locked = live.task is not None, live.lock.locked()
        if endings.waits_for_start(runs=runs, frozen=live.frozen, locked=locked):
            async with live.lock:
                pass

    def _signal(self, row: ContainerRow, task: Task, number: int) -> None:
        if task.process_fd < 0:
            return  # it ended, and was cleaned up, while this waited
        tasks.send_signal(task.process_fd, number)
        self._events.publish("container", "kill", row.id, event_attributes(row, signal=str(int(number))))

    # ---- pause -----------------------------------------------------------------------------------------

    async def pause(self, wanted: str) -> None:
        row, live = self._running(wanted)
        async with live.lock:
            row = self._containers.find(row.id)
            if row.state.status == "paused":
                raise Conflict(f"Container {row.id} is already paused")
            self._freeze(row, frozen=True)
            try:
                self._containers.set_state(row.id, replace(row.state, status="paused"))
            except BaseException:
                # If it were frozen without a record, nobody could thaw it again.
                self._freeze(row, frozen=False)
                raise
            self._events.publish("container", "pause", row.id, event_attributes(row))

    async def unpause(self, wanted: str) -> None:
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            if row.state.status != "paused":
                raise Conflict(f"Container {row.id} is not paused")
            self._freeze(row, frozen=False)
            self._containers.set_state(row.id, replace(row.state, status="running"))
            self._events.publish("container", "unpause", row.id, event_attributes(row))

    async def _thaw_for_signal(self, row: ContainerRow) -> None:
        """Thaw it: a frozen process receives no signal, not even KILL (cgroup version 1)."""
        if self._containers.find(row.id).state.status == "paused":
            await self.unpause(row.id)

    def _freeze(self, row: ContainerRow, *, frozen: bool) -> None:
        path = bundle.cgroup_path(row.record, self._settings)
        try:
            (cgroups.freeze if frozen else cgroups.thaw)(path)
        except OSError as e:
            word = "pause" if frozen else "unpause"
            raise Internal(f"cannot {word} container {row.id[:12]}: {e.strerror}") from e

    def _running(self, wanted: str) -> tuple[ContainerRow, Live]:
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if live.task is None:
            raise Conflict(f"container {row.id} is not running")
        return row, live

    # ---- resize, wait ----------------------------------------------------------------------------------

    def resize(self, wanted: str, *, height: int, width: int) -> None:
        row, live = self._running(wanted)
        assert live.task is not None
        tasks.resize(live.task.directory, height=height, width=width)
        attributes = event_attributes(row, height=str(height), width=str(width))
        self._events.publish("container", "resize", row.id, attributes)

    def wait(self, wanted: str, condition: str) -> asyncio.Future[Exit]:
        """A future that resolves at ``not-running`` (at once if it does not run),
        ``next-exit`` or ``removed``."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        match endings.wait(condition, row.state.status, runs=live.task is not None):
            case Waits.REMOVAL:
                return live.removal()
            case Waits.EXIT:
                return live.next_exit()
            case Waits.NOTHING:
                pass
        done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        done.set_result(Exit(row.state.exit_code, row.state.error if not row.state.started_at else ""))
        return done


async def _within(future: asyncio.Future[Exit], seconds: float | None) -> bool:
    """Whether it resolves within ``seconds``; ``None`` waits for ever."""
    try:
        await asyncio.wait_for(asyncio.shield(future), seconds)
    except TimeoutError:
        return False
    return True
