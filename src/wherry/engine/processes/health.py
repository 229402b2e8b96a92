"""Health checks: when they run, what their results mean, and what happens when they fail.

The rules are Docker's (API "Container inspect", ``State.Health``; Dockerfile reference, HEALTHCHECK). A
container starts as ``starting``; one good result makes it ``healthy``, ``retries`` bad ones in a row
``unhealthy``. Bad results within the start period, before the first good one, do not count.

While a container runs, its :class:`~wherry.model.container.Health` is in memory (``Live.health``). The row is
written when the status or the number of failures in a row changes (as long as that number still matters), and
when the daemon stops. The health log alone is not worth a disk write every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import restartpolicy
from wherry.engine.containers.names import new_id
from wherry.engine.events import EventBus
from wherry.engine.live import Live, LiveSet
from wherry.engine.processes.probes import ProbeResult
from wherry.errors import Conflict, NotFound, NotModified, WherryError
from wherry.model.container import ContainerConfig, Health, HealthResult
from wherry.state.containers import ContainerRow, Containers

log = logging.getLogger(__name__)

SECOND = 10**9
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * SECOND, 30 * SECOND, 5 * SECOND, 3
_LOG_MAX = 5
_GOOD_RUN = 10 * SECOND
"""As in the restart policy: the delay in seconds doubles; ten seconds of being healthy reset it."""


@dataclass(frozen=True)
class Check:
    """A health check with all defaults filled in. Durations in nanoseconds."""

    command: list[str]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int
    on_failure: str


def check_of(config: ContainerConfig) -> Check | None:
    """The container's check, or ``None`` where it has none."""
    wanted = config.healthcheck
    if wanted is None or not wanted.test or wanted.test[0] == "NONE":
        return None
    kind, *command = wanted.test
    if kind == "CMD-SHELL":
        command = [*(config.shell or ["/bin/sh", "-c"]), *command]
    if not command:
        return None
    return Check(
        command=command,
        interval=wanted.interval or _INTERVAL,
        timeout=wanted.timeout or _TIMEOUT,
        start_period=wanted.start_period,
        start_interval=wanted.start_interval or _START_INTERVAL,
        retries=wanted.retries or _RETRIES,
        on_failure=wanted.on_failure or "none",
    )


def until_next(check: Check, health: Health, started_at: int, now: int) -> int:
    """Nanoseconds until the next check."""
    starting = health.status == "starting" and now - started_at < check.start_period
    return check.start_interval if starting else check.interval


def judge(check: Check, health: Health, result: HealthResult, started_at: int) -> Health:
    """The new health after ``result``."""
    log_ = (*health.log[-(_LOG_MAX - 1) :], result)
    if result.exit_code == 0:
        return replace(health, status="healthy", failing_streak=0, log=log_)
    if health.status == "starting" and result.start - started_at < check.start_period:
        return replace(health, log=log_)
    streak = health.failing_streak + 1
    status = "unhealthy" if streak >= check.retries else health.status
    return replace(health, status=status, failing_streak=streak, log=log_)


def go_duration(nanoseconds: int) -> str:
    """A duration in Go's format: ``30s``, ``1m30s``, ``1.5s``, ``500ms``."""
    if nanoseconds < SECOND:
        for unit, size in (("ms", 10**6), ("µs", 10**3)):
            if nanoseconds >= size:
                return f"{_trimmed(nanoseconds / size)}{unit}"
        return f"{nanoseconds}ns"
    minutes, rest = divmod(nanoseconds, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_trimmed(rest / SECOND)}s"


def _trimmed(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")


class CheckRunner(Protocol):
    """Runs a check's command once (``probes.Prober``)."""

    async def run(
        self,
        row: ContainerRow,
        arguments: list[str],
        timeout: float,
        *,
        started: Callable[[], None],
        is_paused: Callable[[], bool],
    ) -> ProbeResult: ...

    def sweep(self, row: ContainerRow) -> None: ...


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """``now`` in nanoseconds since the epoch; ``later`` in seconds from now."""

    def now(self) -> int: ...

    def later(self, seconds: float, call: Callable[[], None]) -> Cancellable: ...


class LoopClock:
    def now(self) -> int:
        return time.time_ns()

    def later(self, seconds: float, call: Callable[[], None]) -> Cancellable:
        return asyncio.get_running_loop().call_later(seconds, call)


@dataclass
class _Watch:
    """One run of one container: it has either a timer or a running check, never both."""

    row: ContainerRow
    live: Live
    check: Check
    healthy_since: int = 0
    timer: Cancellable | None = None
    task: asyncio.Task[None] | None = None
    sweeping: asyncio.Future[None] | None = None
    over: bool = False


class HealthMonitor:
    """One timer for each container that has a check. All of it belongs to the loop's thread.

    ``act`` carries out ``on_failure``: container id, action, and the delay in seconds before the start of a
    restart.
    """

    def __init__(
        self,
        *,
        containers: Containers,
        live: LiveSet,
        events: EventBus,
        runner: CheckRunner,
        act: Callable[[str, str, float], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self._containers = containers
        self._live = live
        self._events = events
        self._runner = runner
        self._act = act
        self._clock = clock or LoopClock()
        self._watches: dict[str, _Watch] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self.checked: list[Callable[[bool], None]] = []
        """Called when a check has ended, with whether it failed."""

    # ---- a container's run -----------------------------------------------------------------------------

    def running(self, container_id: str, *, adopted: bool) -> None:
        """The container runs. If an earlier daemon started it, its health continues from the row."""
        row = self._containers.find(container_id)
        check = check_of(row.record.config)
        live = self._live.get(container_id)
        if check is None:
            live.health = None
            return
        before = row.state.health or Health()
        if not row.state.restart_count:
            before = replace(before, restarts=0)  # A user started it.
        watch = _Watch(row, live, check)
        self._watches[container_id] = watch
        live.on_exit(lambda: self._ended(watch))
        if adopted:
            live.health = before
            watch.healthy_since = self._clock.now() if before.status == "healthy" else 0
            watch.sweeping = asyncio.wrap_future(threads.runtime.submit(self._runner.sweep, row))
            if before.status == "unhealthy" and check.on_failure != "none":
                self._fail(watch, before)  # It is overdue: no daemon was running.
        else:
            self._save(watch, replace(before, status="starting", failing_streak=0))
        self._schedule(watch)

    def _ended(self, watch: _Watch) -> None:
        self._stop(watch)
        self._watches.pop(watch.row.id, None)
        health, watch.live.health = watch.live.health, None
        if health is not None:
            # Docker's clients expect "unhealthy" for a container whose check cannot be run.
            self._write(watch.row.id, replace(health, status="unhealthy"))

    @staticmethod
    def _stop(watch: _Watch) -> None:
        watch.over = True
        if watch.timer is not None:
            watch.timer.cancel()
        if watch.task is not None:
            watch.task.cancel()

    def _schedule(self, watch: _Watch) -> None:
        health = watch.live.health
        assert health is not None
        wait = until_next(watch.check, health, watch.row.state.started_at, self._clock.now())
        watch.timer = self._clock.later(wait / SECOND, lambda: self._due(watch))

    def _due(self, watch: _Watch) -> None:
        watch.timer = None
        if watch.over:
            return
        if self._is_paused(watch):
            self._schedule(watch)
            return
        watch.task = asyncio.get_running_loop().create_task(self._probe(watch))
        watch.task.add_done_callback(_report)

    def _is_paused(self, watch: _Watch) -> bool:
        try:
            watch.row = self._containers.find(watch.row.id)
        except NotFound:
            return False
        return watch.row.state.status == "paused"

    async def _probe(self, watch: _Watch) -> None:
        if watch.sweeping is not None:
            # The sweep could not tell an old check's processes from those of a new one: wait for its end.
            await asyncio.shield(watch.sweeping)
            watch.sweeping = None
        exec_id, command = new_id(), " ".join(watch.check.command)
        loop = asyncio.get_running_loop()
        begun = 0

        def tell(action: str, **more: str) -> None:
            attributes = event_attributes(watch.row, execID=exec_id, **more)
            self._events.publish("container", action, watch.row.id, attributes, keep=False)

        def started() -> None:
            nonlocal begun
            begun = self._clock.now()
            loop.call_soon_threadsafe(tell, f"exec_start: {command}")

        asked = self._clock.now()
        tell(f"exec_create: {command}")
        ended = await self._runner.run(
            watch.row,
            watch.check.command,
            watch.check.timeout / SECOND,
            started=started,
            is_paused=lambda: self._is_paused(watch),
        )
        watch.task = None
        tell("exec_die", exitCode=str(ended.exit_code))
        if watch.over:
            return
        code, output = ended.exit_code, ended.output
        if ended.timed_out:
            code = -1
            reason = f"Health check exceeded timeout ({go_duration(watch.check.timeout)})"
            output = f"{reason}: {output}" if output else reason
        result = HealthResult(start=begun or asked, end=self._clock.now(), exit_code=code, output=output)
        for told in self.checked:
            told(code != 0)
        self._take(watch, result)
        self._schedule(watch)

    # ---- results ---------------------------------------------------------------------------------------

    def _take(self, watch: _Watch, result: HealthResult) -> None:
        before = watch.live.health
        assert before is not None
        health = judge(watch.check, before, result, watch.row.state.started_at)
        counts = health.failing_streak != before.failing_streak and before.status != "unhealthy"
        if health.status == before.status and not counts:
            watch.live.health = health
            return
        self._save(watch, health)
        if health.status == before.status:
            return
        healthy_since, watch.healthy_since = watch.healthy_since, result.end
        self._tell(watch, f"health_status: {health.status}")
        if health.status == "unhealthy" and watch.check.on_failure != "none":
            good = before.status == "healthy" and result.end - healthy_since >= _GOOD_RUN
            self._fail(watch, replace(health, restarts=0) if good else health)

    def _fail(self, watch: _Watch, health: Health) -> None:
        action, delay = watch.check.on_failure, 0.0
        if action == "restart":
            delay = restartpolicy.backoff(health.restarts)
            health = replace(health, restarts=health.restarts + 1)
        self._save(watch, health)
        self._tell(watch, f"health_on_failure: {action}")
        log.info("container %s is unhealthy: %s", watch.row.id[:12], action)
        task = asyncio.get_running_loop().create_task(self._carry_out(watch, action, delay))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _carry_out(self, watch: _Watch, action: str, delay: float) -> None:
        try:
            await self._act(watch.row.id, action, delay)
        except (NotModified, NotFound, Conflict):
            pass  # Meanwhile it ended, or somebody else removed or paused it.
        except WherryError as e:
            log.warning("cannot %s unhealthy container %s: %s", action, watch.row.id[:12], e.message)

    def _tell(self, watch: _Watch, action: str) -> None:
        self._events.publish("container", action, watch.row.id, event_attributes(watch.row))

    def _save(self, watch: _Watch, health: Health) -> None:
        watch.live.health = health
        self._write(watch.row.id, health)

    def _write(self, container_id: str, health: Health) -> None:
        try:
            row = self._containers.find(container_id)
            self._containers.set_state(container_id, replace(row.state, health=health))
        except NotFound:
            pass
        except WherryError as e:
            log.warning("cannot note the health of container %s: %s", container_id[:12], e.message)

    async def close(self) -> None:
        """Store every container's health and stop the running checks; the containers keep running."""
        watches, self._watches = list(self._watches.values()), {}
        tasks = [*self._acting, *(w.task for w in watches if w.task is not None)]
        for watch in watches:
            self._stop(watch)
            if watch.live.health is not None:
                self._write(watch.row.id, watch.live.health)
        for task in self._acting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a health check failed to run", exc_info=task.exception())
