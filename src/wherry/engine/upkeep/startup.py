"""Decide what start-up does with a container, from its row and its observed state alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from msgspec.structs import replace

from wherry.engine.containers import restartpolicy
from wherry.engine.containers.endings import UNKNOWN
from wherry.model.container import ContainerState, HostConfig

LIVING = ("running", "paused")
_AT_REST = ("created", "exited")


@dataclass(frozen=True)
class TaskEnd:
    """How a container ended, as its conmon wrote it. ``finished_at`` in nanoseconds since the epoch."""

    exit_code: int
    finished_at: int
    oom_killed: bool = False


def adopted(state: ContainerState, *, frozen: bool) -> tuple[ContainerState, bool]:
    """The state of a container that still runs, and whether it must be thawed first.

    A container that is frozen although no user paused it was frozen for a commit by a daemon that was killed.
    """
    thaw = frozen and state.status == "running"
    status = "paused" if frozen and not thaw else "running"
    return (state if status == state.status else replace(state, status=status)), thaw


def settled(state: ContainerState, ended: TaskEnd | None, now: int) -> tuple[ContainerState, bool]:
    """The state of a container that does not run, and whether its end is new, so that an event is due.

    :param ended: ``None`` if unknown: the machine was restarted, or somebody cleared ``/run``.
    :param now: nanoseconds since the epoch.
    """
    if state.status in LIVING:
        how = ended if ended is not None else TaskEnd(UNKNOWN, now)
        return replace(
            state,
            status="exited",
            pid=0,
            conmon_pid=0,
            exit_code=how.exit_code,
            finished_at=how.finished_at,
            oom_killed=how.oom_killed,
        ), True
    if state.status in _AT_REST:
        return state, False
    return replace(state, status="exited", pid=0, conmon_pid=0), False


class Then(Enum):
    """What must be done with a container that does not run."""

    NOTHING = "nothing"
    START = "start"
    REMOVE = "remove"


def then(host: HostConfig, state: ContainerState, *, runs: bool) -> Then:
    if runs or state.status == "created":
        return Then.NOTHING
    if host.auto_remove and not state.comes_back:
        return Then.REMOVE
    return Then.START if restartpolicy.starts_with_daemon(host, state) else Then.NOTHING
