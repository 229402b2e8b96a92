"""Which execs are kept, and which may start: tables of values; no daemon, no root, no clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from wherry.engine.processes import execkeeping
from wherry.errors import Conflict, NotModified


@dataclass
class One:
    id: str
    started: bool = True
    running: bool = False
    left: bool = False
    exit_code: int | None = 0
    size: int = 100


def many(count: int, prefix: str = "", **fields: object) -> list[One]:
    return [One(f"{prefix}{n}", **fields) for n in range(count)]  # type: ignore[arg-type]


def test_the_newest_ended_ones_stay() -> None:
    assert execkeeping.to_forget(many(256)) == []
    assert execkeeping.to_forget(many(258)) == ["0", "1"]


@pytest.mark.parametrize("fields", [{"running": True}, {"left": True}], ids=["runs", "left processes"])
def test_what_runs_is_not_forgotten(fields: dict[str, object]) -> None:
    assert execkeeping.to_forget([*many(300, "live", **fields), *many(257, "done")]) == ["done0"]


def test_the_newest_waiting_ones_stay() -> None:
    assert execkeeping.to_forget(many(1026, started=False, size=1)) == ["0", "1"]


@pytest.mark.parametrize(
    ("sizes", "forgotten"),
    [
        ([8 << 20, 8 << 20], []),
        ([1, 8 << 20, 8 << 20], ["0"]),
        ([8 << 20, 17 << 20], ["0"]),
        ([17 << 20], []),
        ([1, 17 << 20, 1], ["0", "1"]),
    ],
    ids=["just fits", "one too many", "the newest alone is too large", "one alone", "a large one amid"],
)
def test_waiting_ones_have_a_limit_of_bytes(sizes: list[int], forgotten: list[str]) -> None:
    waiting = [One(str(n), started=False, size=size) for n, size in enumerate(sizes)]
    assert execkeeping.to_forget(waiting) == forgotten


@pytest.mark.parametrize(
    ("execution", "error"),
    [
        (One("e", running=True), "exec command e is already running"),
        (One("e", exit_code=None), "exec command e is already running"),
        (One("e", exit_code=0), "exec command e has already run"),
    ],
    ids=["runs", "starts", "has ended"],
)
def test_an_exec_starts_once(execution: One, error: str) -> None:
    execkeeping.check_new(One("e", started=False, exit_code=None))
    with pytest.raises(Conflict, match=error):
        execkeeping.check_new(execution)


@pytest.mark.parametrize(
    ("status", "runs", "error"),
    [("exited", False, "container id is not running"), ("paused", True, "Container web is paused")],
)
def test_containers_without_execs(status: str, runs: bool, error: str) -> None:
    execkeeping.check_container("id", "web", "running", runs=True)
    with pytest.raises(Conflict, match=error):
        execkeeping.check_container("id", "web", status, runs=runs)


@pytest.mark.parametrize(("code", "want"), [(128, 126), (127, 127), (126, 126)])
def test_the_exit_code_of_a_failed_start(code: int, want: int) -> None:
    assert execkeeping.failed_code(code) == want


@pytest.mark.parametrize(("timeout", "want"), [(None, 10.0), (0, 0.0), (3, 3.0), (-1, None)])
def test_the_time_until_kill(timeout: int | None, want: float | None) -> None:
    assert execkeeping.grace(timeout) == want


def test_what_can_be_stopped() -> None:
    execkeeping.check_stoppable("id", "running", alive=True)
    with pytest.raises(NotModified, match="exec already stopped"):
        execkeeping.check_stoppable("id", "exited", alive=False)
    with pytest.raises(Conflict, match="container id is paused"):
        execkeeping.check_stoppable("id", "paused", alive=False)
