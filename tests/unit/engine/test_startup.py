"""What a start-up makes of containers, as a table: no daemon, no root, no clock."""

from __future__ import annotations

import pytest

from wherry.engine.upkeep import startup
from wherry.engine.upkeep.startup import TaskEnd, Then
from wherry.model.container import ContainerState, HostConfig, RestartPolicy

NOW = 1_000


def state(status: str, **fields: object) -> ContainerState:
    return ContainerState(status=status, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "frozen", "want", "thaw"),
    [
        ("running", False, "running", False),
        ("running", True, "running", True),
        ("paused", True, "paused", False),
        ("paused", False, "running", False),
    ],
    ids=["runs", "held still for a commit", "paused by a user", "thawed while no daemon ran"],
)
def test_one_that_runs_on(status: str, frozen: bool, want: str, thaw: bool) -> None:
    found, is_thawed = startup.adopted(state(status, pid=7), frozen=frozen)
    assert (found.status, found.pid, is_thawed) == (want, 7, thaw)


@pytest.mark.parametrize(
    ("before", "ended", "want", "news"),
    [
        (
            state("running", pid=7, conmon_pid=6),
            TaskEnd(3, 900, oom_killed=True),
            state("exited", exit_code=3, finished_at=900, oom_killed=True),
            True,
        ),
        (state("running", pid=7), None, state("exited", exit_code=255, finished_at=NOW), True),
        (state("paused", pid=7), None, state("exited", exit_code=255, finished_at=NOW), True),
        (
            state("restarting", pid=7, exit_code=1, finished_at=5),
            None,
            state("exited", exit_code=1, finished_at=5),
            False,
        ),
        (state("exited", exit_code=4), TaskEnd(9, 900), state("exited", exit_code=4), False),
        (state("created"), None, state("created"), False),
    ],
    ids=["its end is known", "a new boot", "paused", "between two starts", "ended before", "never ran"],
)
def test_one_that_does_not_run(
    before: ContainerState, ended: TaskEnd | None, want: ContainerState, news: bool
) -> None:
    assert startup.settled(before, ended, NOW) == (want, news)


def host(policy: str = "no", *, auto_remove: bool = False) -> HostConfig:
    return HostConfig(restart_policy=RestartPolicy(name=policy), auto_remove=auto_remove)


@pytest.mark.parametrize(
    ("config", "found", "runs", "want"),
    [
        (host("always"), state("exited"), True, Then.NOTHING),
        (host("always"), state("created"), False, Then.NOTHING),
        (host("always"), state("exited", manually_stopped=True), False, Then.START),
        (host("unless-stopped"), state("exited", manually_stopped=True), False, Then.NOTHING),
        (host("unless-stopped"), state("exited"), False, Then.START),
        (host("on-failure"), state("exited", exit_code=0), False, Then.NOTHING),
        (host("on-failure"), state("exited", exit_code=1), False, Then.START),
        (host(), state("exited", exit_code=1), False, Then.NOTHING),
        (host(), state("exited", comes_back=True), False, Then.START),
        (host(auto_remove=True), state("exited"), False, Then.REMOVE),
        (host(auto_remove=True), state("exited", comes_back=True), False, Then.START),
        (host(auto_remove=True), state("created"), False, Then.NOTHING),
    ],
    ids=[
        "it runs", "never started", "always, stopped by hand", "unless-stopped, by hand", "unless-stopped",
        "on-failure after 0", "on-failure after 1", "no policy", "its health brings it back",
        "--rm", "--rm that comes back", "--rm, never started",
    ],
)  # fmt: skip
def test_what_follows(config: HostConfig, found: ContainerState, runs: bool, want: Then) -> None:
    assert startup.then(config, found, runs=runs) is want
