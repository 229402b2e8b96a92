"""What is done to a container that runs: signals, stops, pauses, resizes, waits."""

from __future__ import annotations

import asyncio
import signal

from msgspec.structs import replace

from wherry.engine import bundle
from wherry.engine.attributes import event_attributes
from wherry.engine.events import EventBus
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.live import Exit, Live, LiveSet, Task
from wherry.engine.settings import Settings
from wherry.errors import Conflict, Internal, NotModified
from wherry.linux import cgroups
from wherry.linux.signals import parse_signal
from wherry.runtime import task as tasks
from wherry.state.containers import ContainerRow, Containers


class Control:
    """The exits that these cause are the lifecycle's to handle; a start under way is waited for first."""

    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        lifecycle: Lifecycle,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._lifecycle = lifecycle
        self._events = events
        self._live = live

    # ---- stop, kill, restart ---------------------------------------------------------------------------

    async def stop(
        self,
        wanted: str,
        *,
        timeout: int | None = None,
        signal_name: str | None = None,
        restart_after: float | None = None,
    ) -> None:
        """Signal, wait, kill. ``timeout`` in seconds, -1 for ever, ``None`` for the container's own.

        :param restart_after: have it started again so many seconds after its exit, unless somebody else
            stops it.
        :raises NotModified: it is not running.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        number = parse_signal(signal_name) if signal_name else self._stop_signal(row)
        await self.until_started(live)
        row = self._containers.find(row.id)
        live.restart_after = restart_after
        if self._lifecycle.cancel_restart(live):
            state = replace(row.state, status="exited", manually_stopped=True, comes_back=False)
            self._containers.set_state(row.id, state)
            live.exited(live.last_exit)
            return
        task = live.task
        if task is None:
            raise NotModified("container already stopped")
        live.stopping = True
        exited = live.next_exit()
        await self._thaw_for_signal(row)
        self._signal(row, task, number)
        grace = timeout if timeout is not None else row.record.config.stop_timeout
        if await _within(exited, 10 if grace is None else grace):
            self._events.publish("container", "stop", row.id, event_attributes(row))
            return
        self._signal(row, task, signal.SIGKILL)
        if not await _within(exited, 30):
            live.stopping = False
            raise Internal(f"cannot stop container {wanted}: it did not end within 30 s of SIGKILL")
        self._events.publish("container", "stop", row.id, event_attributes(row))

    async def kill(self, wanted: str, signal_name: str = "KILL") -> None:
        """:raises Conflict: it is not running."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        number = parse_signal(signal_name or "KILL")
        await self.until_started(live)
        row = self._containers.find(row.id)
        if live.task is None:
            if row.state.status == "restarting" and self._lifecycle.cancel_restart(live):
                state = replace(row.state, status="exited", manually_stopped=True, comes_back=False)
                self._containers.set_state(row.id, state)
                return
            raise Conflict(f"cannot kill container: {wanted}: container {row.id} is not running")
        if number in (signal.SIGKILL, self._stop_signal(row)):
            live.stopping = True
            live.restart_after = None
        exited = live.next_exit()
        self._signal(row, live.task, number)
        if number == signal.SIGKILL:
            await self._thaw_for_signal(row)
            if not await _within(exited, 10):
                raise Internal(f"cannot kill container: {wanted}: it did not end within 10 s")

    async def restart(
        self, wanted: str, *, timeout: int | None = None, signal_name: str | None = None
    ) -> None:
        """Stop it if it runs, and start it; one that removes itself stays for this once."""
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
        """A health check's ``on_failure``: ``stop``; ``kill``, as if it had died by itself, so that its
        restart policy decides; or ``restart``, with ``delay`` seconds between end and start.

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
            # A daemon that ends in between leaves word that the container is wanted.
            self._containers.set_state(container_id, replace(row.state, comes_back=True))
            await self.stop(container_id, restart_after=delay)

    @staticmethod
    async def until_started(live: Live) -> None:
        """Let a start under way end first: its process runs already, but nobody can be signalled yet."""
        if (live.task is None or live.frozen) and live.lock.locked():
            async with live.lock:
                pass

    def _signal(self, row: ContainerRow, task: Task, number: int) -> None:
        if task.process_fd < 0:
            return  # it ended, and was cleaned up after, while this waited for something else
        tasks.send_signal(task.process_fd, number)
        self._events.publish("container", "kill", row.id, event_attributes(row, signal=str(int(number))))

    @staticmethod
    def _stop_signal(row: ContainerRow) -> int:
        return parse_signal(row.record.config.stop_signal or "TERM")

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
                # Frozen without a record of it, nobody could thaw it again.
                self._freeze(row, frozen=False)
                raise
            self._events.publish("container", "pause", row.id, event_attributes(row))

    async def unpause(self, wanted: str) -> None:
        row, live = self._running(wanted)
        async with live.lock:
            row = self._containers.find(row.id)
            if row.state.status != "paused":
                raise Conflict(f"Container {row.id} is not paused")
            self._freeze(row, frozen=False)
            self._containers.set_state(row.id, replace(row.state, status="running"))
            self._events.publish("container", "unpause", row.id, event_attributes(row))

    async def _thaw_for_signal(self, row: ContainerRow) -> None:
        """A frozen process takes no signal, not even KILL (version 1)."""
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
            raise Conflict(f"Container {row.id} is not running")
        return row, live

    # ---- resize, wait ----------------------------------------------------------------------------------

    def resize(self, wanted: str, *, height: int, width: int) -> None:
        row, live = self._running(wanted)
        assert live.task is not None
        tasks.resize(live.task.directory, height=height, width=width)
        attributes = event_attributes(row, height=str(height), width=str(width))
        self._events.publish("container", "resize", row.id, attributes)

    def wait(self, wanted: str, condition: str) -> asyncio.Future[Exit]:
        """A future for ``not-running`` (at once if it is so already), ``next-exit`` or ``removed``."""
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if condition == "removed":
            return live.removal()
        if condition == "next-exit" or live.task is not None or row.state.status == "restarting":
            return live.next_exit()
        done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        done.set_result(Exit(row.state.exit_code, row.state.error if not row.state.started_at else ""))
        return done


async def _within(future: asyncio.Future[Exit], seconds: float) -> bool:
    """Whether it resolves within ``seconds``; negative waits for ever."""
    try:
        await asyncio.wait_for(asyncio.shield(future), None if seconds < 0 else seconds)
    except TimeoutError:
        return False
    return True
