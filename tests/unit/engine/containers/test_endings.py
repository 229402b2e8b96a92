"""What follows an exit, what a stop waits for: tables of values; no daemon, no root, no clock."""

from __future__ import annotations

import signal

import pytest

from wherry.engine.containers import endings
from wherry.engine.containers.endings import Asked, ExitStep, Round, Waits
from wherry.errors import Conflict, InvalidArgument, NotModified
from wherry.model.container import ContainerConfig, ContainerState, HostConfig, RestartPolicy

SECOND = 10**9
STARTED, FINISHED = 100 * SECOND, 103 * SECOND
KILL, TERM, INT = int(signal.SIGKILL), int(signal.SIGTERM), int(signal.SIGINT)

RUNS = ContainerState(status="running", pid=7, conmon_pid=6, started_at=STARTED)
WAITED = ContainerState(status="restarting", started_at=STARTED, restart_count=2)
ALWAYS = [ExitStep.SAVE, ExitStep.PUBLISH, ExitStep.RELEASE, ExitStep.ANSWER]
LAST = [ExitStep.FORGET, ExitStep.FIT_LOGS]


def host(policy: str = "no", *, auto_remove: bool = False) -> HostConfig:
    return HostConfig(restart_policy=RestartPolicy(name=policy), auto_remove=auto_remove)


def after(config: HostConfig, asked: Asked, *, code: int = 1) -> endings.AfterExit:
    return endings.after_exit(config, RUNS, asked, exit_code=code, finished_at=FINISHED)


@pytest.mark.parametrize(
    ("config", "asked", "status", "between"),
    [
        (host(), Asked(), "exited", []),
        (host("always"), Asked(), "restarting", [ExitStep.RESTART]),
        (host("always"), Asked(stopping=True), "exited", []),
        (host("always"), Asked(removing=True), "exited", []),
        (host("always"), Asked(closing=True), "exited", []),
        (host(), Asked(stopping=True, restart_after=2.0), "restarting", [ExitStep.RESTART]),
        (host(), Asked(closing=True, restart_after=2.0), "exited", []),
        (host(auto_remove=True), Asked(), "exited", [ExitStep.REMOVE]),
        (host(auto_remove=True), Asked(stopping=True), "exited", [ExitStep.REMOVE]),
        (host(auto_remove=True), Asked(stopping=True, coming_back=True), "exited", []),
        (host(auto_remove=True), Asked(restart_after=0.0), "restarting", [ExitStep.RESTART]),
    ],
    ids=[
        "no policy",
        "policy",
        "policy, stopped by a client",
        "policy, being removed",
        "policy, the daemon stops",
        "health check restarts it",
        "health check restarts it, the daemon stops",
        "--rm",
        "--rm, stopped by a client",
        "--rm, restarted by a client",
        "--rm, health check restarts it",
    ],
)
def test_steps_after_an_exit(config: HostConfig, asked: Asked, status: str, between: list[ExitStep]) -> None:
    found = after(config, asked)
    removes = [step for step in between if step is ExitStep.REMOVE]
    restarts = [step for step in between if step is ExitStep.RESTART]
    assert found.state.status == status
    assert list(found.steps) == [*ALWAYS, *removes, *LAST, *restarts]
    assert (found.delay is not None) == bool(restarts)


def test_the_state_after_an_exit() -> None:
    found = after(host(), Asked(), code=3)
    assert found.state == ContainerState(
        status="exited", exit_code=3, started_at=STARTED, finished_at=FINISHED
    )
    assert found.ran == 3


def test_a_clock_set_back_gives_no_negative_run() -> None:
    found = endings.after_exit(host(), RUNS, Asked(), exit_code=0, finished_at=STARTED - SECOND)
    assert found.ran == 0


@pytest.mark.parametrize(
    ("asked", "by_hand", "comes_back"),
    [
        (Asked(), False, False),
        (Asked(stopping=True), True, False),
        (Asked(stopping=True, restart_after=1.0), False, True),
        (Asked(closing=True, stopping=True, restart_after=1.0), False, True),
    ],
    ids=["by itself", "stopped", "by its health check", "by its health check while the daemon stops"],
)
def test_what_the_next_daemon_reads(asked: Asked, by_hand: bool, comes_back: bool) -> None:
    """``unless-stopped`` depends on the first, an unfinished restart on the second."""
    state = after(host(), asked).state
    assert (state.manually_stopped, state.comes_back) == (by_hand, comes_back)


def test_a_health_check_s_restart_has_its_own_delay_and_is_counted() -> None:
    found = after(host("always"), Asked(stopping=True, restart_after=2.5))
    assert (found.delay, found.state.restart_count) == (2.5, 1)


@pytest.mark.parametrize(
    ("before", "restart_count", "policy", "status", "tried_again"),
    [
        (ContainerState(status="created"), 0, "always", "created", False),
        (ContainerState(status="exited", started_at=STARTED), 0, "always", "exited", False),
        (WAITED, 2, "always", "restarting", True),
        (WAITED, 2, "no", "exited", False),
    ],
    ids=["first start", "start by a client", "restart", "restart, policy taken away meanwhile"],
)
def test_a_start_that_failed(
    before: ContainerState, restart_count: int, policy: str, status: str, tried_again: bool
) -> None:
    state, delay = endings.failed_start(
        host(policy),
        before,
        Asked(),
        exit_code=127,
        error="no such file",
        restart_count=restart_count,
        now=FINISHED,
    )
    assert (state.status, state.exit_code, state.error) == (status, 127, "no such file")
    assert (delay is not None) == tried_again
    assert state.restart_count == before.restart_count + (1 if tried_again else 0)


@pytest.mark.parametrize("status", ["exited", "restarting"])
def test_a_clean_up_that_failed_keeps_a_state_that_was_saved(status: str) -> None:
    saved = ContainerState(status=status, exit_code=4, finished_at=FINISHED)
    assert endings.ended_badly(saved, "no room", FINISHED + 1) is saved


def test_a_clean_up_that_failed_before_the_state_was_saved() -> None:
    found = endings.ended_badly(RUNS, "no room", FINISHED)
    assert (found.status, found.exit_code, found.error, found.pid) == ("exited", 255, "no room", 0)
    assert found.finished_at == FINISHED


# ---- start, stop, kill ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "removing", "runs", "error"),
    [
        ("exited", True, False, "marked for removal"),
        ("removing", False, False, "marked for removal"),
        ("dead", False, False, "marked for removal"),
        ("paused", False, True, "try unpause instead"),
        ("running", False, True, "already started"),
    ],
)
def test_what_cannot_be_started(status: str, removing: bool, runs: bool, error: str) -> None:
    with pytest.raises(NotModified if error == "already started" else Conflict, match=error):
        endings.check_startable(status, removing=removing, runs=runs)


@pytest.mark.parametrize("status", ["created", "exited", "restarting"])
def test_what_can_be_started(status: str) -> None:
    assert endings.check_startable(status, removing=False, runs=False) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("config", "asked", "rounds"),
    [
        ({}, {}, [Round(TERM, 10), Round(KILL, 30)]),
        ({"stop_timeout": 3}, {}, [Round(TERM, 3), Round(KILL, 30)]),
        ({"stop_timeout": 3}, {"timeout": 5}, [Round(TERM, 5), Round(KILL, 30)]),
        ({"stop_timeout": 3}, {"timeout": 0}, [Round(TERM, 0), Round(KILL, 30)]),
        ({}, {"timeout": -1}, [Round(TERM, None)]),
        ({"stop_timeout": -1}, {}, [Round(TERM, None)]),
        ({"stop_signal": "SIGINT"}, {}, [Round(INT, 10), Round(KILL, 30)]),
        ({"stop_signal": "SIGINT"}, {"signal_name": "TERM"}, [Round(TERM, 10), Round(KILL, 30)]),
    ],
    ids=[
        "defaults",
        "the container's timeout",
        "the request's timeout",
        "at once",
        "for ever",
        "the container for ever",
        "the container's signal",
        "the request's signal",
    ],
)
def test_what_a_stop_sends_and_waits_for(
    config: dict[str, object], asked: dict[str, object], rounds: list[Round]
) -> None:
    found = endings.stop_rounds(ContainerConfig(**config), **asked)  # type: ignore[arg-type]
    assert list(found) == rounds


def test_a_stop_with_an_unknown_signal() -> None:
    with pytest.raises(InvalidArgument, match="NONSENSE"):
        endings.stop_rounds(ContainerConfig(), signal_name="NONSENSE")


@pytest.mark.parametrize(
    ("own", "name", "number", "counts", "thaws", "seconds"),
    [
        ("", "", KILL, True, True, 10),
        ("", "KILL", KILL, True, True, 10),
        ("", "TERM", TERM, True, True, 0),
        ("", "HUP", int(signal.SIGHUP), False, True, 0),
        ("INT", "TERM", TERM, False, False, 0),
        ("INT", "INT", INT, True, True, 0),
        ("INT", "KILL", KILL, True, True, 10),
    ],
)
def test_a_kill(own: str, name: str, number: int, counts: bool, thaws: bool, seconds: float) -> None:
    found = endings.kill(ContainerConfig(stop_signal=own), name)
    assert found == endings.Kill(number, counts_as_stop=counts, thaws=thaws, seconds=seconds)


@pytest.mark.parametrize(
    ("runs", "frozen", "locked", "waits"),
    [
        (False, False, True, True),
        (True, True, True, True),
        (True, False, True, False),
        (False, False, False, False),
        (True, True, False, False),
    ],
    ids=["a start under way", "held frozen", "cleaned up or renamed", "at rest", "paused by a user"],
)
def test_a_signal_waits_for_a_start(runs: bool, frozen: bool, locked: bool, waits: bool) -> None:
    assert endings.waits_for_start(runs=runs, frozen=frozen, locked=locked) is waits


def test_stopping_what_waits_for_its_restart() -> None:
    waiting = ContainerState(status="restarting", comes_back=True, exit_code=3)
    found = endings.without_restart(waiting)
    assert found == ContainerState(status="exited", manually_stopped=True, exit_code=3)


# ---- wait, remove --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "status", "runs", "want"),
    [
        ("not-running", "exited", False, Waits.NOTHING),
        ("not-running", "created", False, Waits.NOTHING),
        ("not-running", "running", True, Waits.EXIT),
        ("not-running", "restarting", False, Waits.EXIT),
        ("next-exit", "exited", False, Waits.EXIT),
        ("removed", "exited", False, Waits.REMOVAL),
        ("removed", "running", True, Waits.REMOVAL),
    ],
)
def test_what_a_wait_is_for(condition: str, status: str, runs: bool, want: Waits) -> None:
    assert endings.wait(condition, status, runs=runs) is want


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("running", "is running: stop the container"),
        ("restarting", "is restarting: stop the container"),
        ("paused", "is paused and must be unpaused first"),
    ],
)
def test_what_is_removed_by_force_only(status: str, error: str) -> None:
    with pytest.raises(Conflict, match=error):
        endings.check_removable("web", status, removing=False, force=False)
    endings.check_removable("web", status, removing=False, force=True)


@pytest.mark.parametrize("status", ["created", "exited", "dead"])
def test_one_removal_at_a_time(status: str) -> None:
    endings.check_removable("web", status, removing=False, force=False)
    with pytest.raises(Conflict, match="removal of container web is already in progress"):
        endings.check_removable("web", status, removing=True, force=True)


@pytest.mark.parametrize(
    ("status", "runs", "unseen"),
    [("running", False, True), ("paused", False, True), ("running", True, False), ("exited", False, False)],
)
def test_what_the_daemon_could_not_inspect_may_run(status: str, runs: bool, unseen: bool) -> None:
    assert endings.may_run_unseen(status, runs=runs) is unseen
