"""Health checks by a clock that the test turns and a runner that answers what the test says."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from databases import open_database

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.live import Exit, LiveSet
from wherry.engine.processes.health import (
    SECOND,
    Check,
    HealthMonitor,
    check_of,
    go_duration,
    judge,
    until_next,
)
from wherry.engine.processes.probes import ProbeResult
from wherry.errors import NotModified
from wherry.model.container import (
    Container,
    ContainerConfig,
    ContainerState,
    Health,
    HealthResult,
    HostConfig,
)
from wherry.model.digest import Digest
from wherry.model.oci import Healthcheck
from wherry.state.containers import ContainerRow, Containers
from wherry.state.events import EventLog
from wherry.state.schema import MIGRATIONS

ID = "a" * 64


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    return functools.wraps(test)(run)


def check(**more: int) -> Check:
    values = {
        "interval": SECOND,
        "timeout": SECOND,
        "start_period": 0,
        "start_interval": SECOND,
        "retries": 2,
    }
    return Check(command=["true"], on_failure="none", **{**values, **more})


def result(code: int, start: int = 0) -> HealthResult:
    return HealthResult(start=start, end=start, exit_code=code)


# ---- rules -----------------------------------------------------------------------------------------------


def test_the_defaults_are_dockers() -> None:
    found = check_of(ContainerConfig(healthcheck=Healthcheck(test=["CMD-SHELL", "a b"])))
    assert found == Check(
        command=["/bin/sh", "-c", "a b"],
        interval=30 * SECOND,
        timeout=30 * SECOND,
        start_period=0,
        start_interval=5 * SECOND,
        retries=3,
        on_failure="none",
    )


@pytest.mark.parametrize(
    ("test", "command"),
    [(None, None), ([], None), (["NONE"], None), (["CMD"], None), (["CMD", "a", "b"], ["a", "b"])],
)
def test_what_is_run(test: list[str] | None, command: list[str] | None) -> None:
    found = check_of(ContainerConfig(healthcheck=Healthcheck(test=test)))
    assert (found.command if found else None) == command


def test_a_shell_of_its_own() -> None:
    config = ContainerConfig(healthcheck=Healthcheck(test=["CMD-SHELL", "x"]), shell=["/bin/bash", "-ec"])
    found = check_of(config)
    assert found is not None and found.command == ["/bin/bash", "-ec", "x"]


def test_good_and_bad_results() -> None:
    health = judge(check(), Health(), result(1), 0)
    assert (health.status, health.failing_streak) == ("starting", 1)
    health = judge(check(), health, result(1), 0)
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    health = judge(check(), health, result(0), 0)
    assert (health.status, health.failing_streak) == ("healthy", 0)
    health = judge(check(), health, result(-1), 0)
    assert (health.status, health.failing_streak) == ("healthy", 1)
    for number in range(9):
        health = judge(check(), health, result(number), 0)
    assert [entry.exit_code for entry in health.log] == [4, 5, 6, 7, 8]


def test_bad_results_in_the_start_period_do_not_count_until_one_was_good() -> None:
    early = check(start_period=10 * SECOND, retries=1)
    health = judge(early, Health(), result(1, 5 * SECOND), 0)
    assert (health.status, health.failing_streak, len(health.log)) == ("starting", 0, 1)
    assert judge(early, health, result(1, 10 * SECOND), 0).status == "unhealthy"
    health = judge(early, health, result(0, 6 * SECOND), 0)
    assert judge(early, health, result(1, 7 * SECOND), 0).status == "unhealthy"


def test_the_start_interval_ends_with_the_start_period_or_the_first_good_result() -> None:
    early = check(start_period=10, start_interval=3, interval=7)
    assert until_next(early, Health(), 0, 9) == 3
    assert until_next(early, Health(), 0, 10) == 7
    assert until_next(early, Health(status="healthy"), 0, 5) == 7


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (30 * SECOND, "30s"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (3 * SECOND // 2, "1.5s"),
        (SECOND // 2, "500ms"),
        (1500, "1.5µs"),
        (1, "1ns"),
    ],
)
def test_durations_read_as_gos(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


# ---- the monitor -----------------------------------------------------------------------------------------


class Timer:
    def __init__(self, at: int, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    def __init__(self) -> None:
        self.time = 1_000 * SECOND
        self.timers: list[Timer] = []

    def now(self) -> int:
        return self.time

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self.time + int(seconds * SECOND), call)
        self.timers.append(timer)
        return timer

    @property
    def due(self) -> list[Timer]:
        return [t for t in self.timers if not t.cancelled]

    async def turn(self) -> None:
        """On to the next timer, and until what it began has settled."""
        (timer,) = self.due
        self.timers.clear()
        self.time = timer.at
        timer.call()
        assert not await threads.drain(5)  # what a check waits for first, when it was adopted
        for _ in range(20):
            await asyncio.sleep(0)


class Runner:
    def __init__(self) -> None:
        self.answers: list[ProbeResult] = []
        self.ran: list[tuple[list[str], float]] = []
        self.swept: list[str] = []

    async def run(
        self,
        row: ContainerRow,
        arguments: list[str],
        timeout: float,
        *,
        started: Callable[[], None],
        is_paused: Callable[[], bool],
    ) -> ProbeResult:
        self.ran.append((arguments, timeout))
        started()
        await asyncio.sleep(0)
        return self.answers.pop(0) if self.answers else ProbeResult(0, "")

    def sweep(self, row: ContainerRow) -> None:
        self.swept.append(row.id)


class Room:
    def __init__(self, **health: object) -> None:
        values = {"test": ["CMD", "probe"], "interval": SECOND, "retries": 1, **health}
        self.containers = Containers(open_database(":memory:", MIGRATIONS))
        self.log = EventLog(open_database(":memory:", MIGRATIONS))
        self.live = LiveSet()
        self.clock, self.runner = Clock(), Runner()
        self.acted: list[tuple[str, float]] = []
        record = Container(
            id=ID,
            created=1,
            image_ref="i",
            image_id=Digest("sha256:" + "0" * 64),
            chain_id=None,
            platform="linux/amd64",
            path="x",
            args=[],
            config=ContainerConfig(healthcheck=Healthcheck(**values)),  # type: ignore[arg-type]
            host_config=HostConfig(),
            networks={},
            mounts=[],
            storage_driver="overlay",
        )
        self.containers.insert("c", record, ContainerState())
        self.state(status="running", started_at=self.clock.time)

    def state(self, **changes: object) -> None:
        self.containers.set_state(ID, ContainerState(**changes))  # type: ignore[arg-type]

    def monitor(self, act: Callable[[str, str, float], Awaitable[None]] | None = None) -> HealthMonitor:
        async def note(_container: str, action: str, delay: float) -> None:
            self.acted.append((action, delay))
            raise NotModified("it ended meanwhile")

        return HealthMonitor(
            containers=self.containers,
            live=self.live,
            events=EventBus(self.log),
            runner=self.runner,
            act=act or note,
            clock=self.clock,
        )

    @property
    def health(self) -> Health:
        found = self.live.get(ID).health
        assert found is not None
        return found

    @property
    def kept(self) -> Health | None:
        return self.containers.find(ID).state.health

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.log.between(None, None)]


@on_loop
async def test_from_starting_to_healthy_to_unhealthy() -> None:
    room = Room(timeout=2 * SECOND)
    monitor = room.monitor()
    monitor.running(ID, adopted=False)
    assert room.health.status == "starting"
    assert room.kept == room.health
    await room.clock.turn()
    assert room.runner.ran == [(["probe"], 2.0)]
    assert room.health.status == "healthy"
    room.runner.answers = [ProbeResult(3, "no\n")]
    await room.clock.turn()
    assert (room.health.status, room.health.failing_streak) == ("unhealthy", 1)
    assert (room.health.log[-1].exit_code, room.health.log[-1].output) == (3, "no\n")
    # Probes' own events are for those who listen, and are not kept.
    assert room.actions == ["health_status: healthy", "health_status: unhealthy"]
    assert room.acted == []
    await monitor.close()
    assert room.clock.due == []


@on_loop
async def test_a_run_that_takes_too_long() -> None:
    room = Room()
    monitor = room.monitor()
    monitor.running(ID, adopted=False)
    room.runner.answers = [ProbeResult(137, "half", timed_out=True), ProbeResult(137, "", timed_out=True)]
    await room.clock.turn()
    assert (room.health.log[-1].exit_code, room.health.log[-1].output) == (
        -1,
        "Health check exceeded timeout (30s): half",
    )
    await room.clock.turn()
    assert room.health.log[-1].output == "Health check exceeded timeout (30s)"
    await monitor.close()


@on_loop
async def test_the_row_is_written_when_something_changed_and_at_the_end() -> None:
    room = Room(retries=2)
    monitor = room.monitor()
    monitor.running(ID, adopted=False)
    await room.clock.turn()
    written = room.kept
    await room.clock.turn()
    assert room.kept == written
    assert len(room.health.log) == 2
    await monitor.close()
    assert room.kept == room.health


@on_loop
async def test_nothing_is_run_while_it_is_paused_or_after_its_end() -> None:
    room = Room()
    monitor = room.monitor()
    monitor.running(ID, adopted=False)
    room.state(status="paused", started_at=1)
    await room.clock.turn()
    assert room.runner.ran == []
    room.state(status="running", started_at=1)
    await room.clock.turn()
    assert len(room.runner.ran) == 1
    room.live.get(ID).exited(Exit(0))
    assert room.clock.due == []
    assert room.kept is not None and room.kept.status == "unhealthy"
    assert room.live.get(ID).health is None
    await monitor.close()


@on_loop
async def test_status_and_streak_survive_a_daemon() -> None:
    room = Room(retries=3)
    first = room.monitor()
    first.running(ID, adopted=False)
    await room.clock.turn()
    room.runner.answers = [ProbeResult(1, ""), ProbeResult(1, "")]
    await room.clock.turn()
    await room.clock.turn()
    await first.close()
    room.live = LiveSet()
    second = room.monitor()
    second.running(ID, adopted=True)
    assert (room.health.status, room.health.failing_streak) == ("healthy", 2)
    room.runner.answers = [ProbeResult(1, "")]
    await room.clock.turn()
    assert room.health.status == "unhealthy"
    assert room.runner.swept == [ID]
    await second.close()


@on_loop
async def test_restarts_wait_longer_each_time_until_a_run_was_good() -> None:
    room = Room(on_failure="restart")
    monitor = room.monitor()

    async def run(answers: list[ProbeResult], *, by_user: bool = False) -> None:
        health = room.kept
        room.state(
            status="running", started_at=room.clock.time, health=health, restart_count=0 if by_user else 1
        )
        monitor.running(ID, adopted=False)
        room.runner.answers = list(answers)
        while room.runner.answers:
            await room.clock.turn()
        room.live.get(ID).exited(Exit(0))

    bad, good = ProbeResult(1, ""), ProbeResult(0, "")
    await run([bad])
    await run([bad])
    await run([good, bad])
    assert room.acted == [("restart", 0.1), ("restart", 0.2), ("restart", 0.4)]
    await run([*[good] * 11, bad])
    assert room.acted[-1] == ("restart", 0.1)
    await run([bad])
    assert room.acted[-1] == ("restart", 0.2)
    await run([bad], by_user=True)
    assert room.acted[-1] == ("restart", 0.1)
    assert room.actions.count("health_on_failure: restart") == 6
    assert room.kept is not None and room.kept.restarts == 1
    await monitor.close()


@on_loop
async def test_what_a_daemon_did_not_get_to_is_done_by_the_next() -> None:
    room = Room(on_failure="stop")
    room.state(status="running", health=Health(status="unhealthy", failing_streak=3))
    monitor = room.monitor()
    monitor.running(ID, adopted=True)
    await asyncio.sleep(0)
    assert room.acted == [("stop", 0.0)]
    await monitor.close()


@on_loop
async def test_without_a_check_nothing_is_done() -> None:
    room = Room(test=["NONE"])
    monitor = room.monitor()
    monitor.running(ID, adopted=False)
    assert room.clock.due == []
    assert room.live.get(ID).health is None
    assert room.kept is None
    await monitor.close()
