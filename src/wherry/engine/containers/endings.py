"""Decide what follows a container's exit, and what a stop, a kill, a wait and a removal do.

Everything here is a function of values: no task, no clock, no database. ``Lifecycle``, ``Control`` and
``Removal`` carry the decisions out. Times are nanoseconds since the epoch, durations seconds.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from msgspec.structs import replace

from wherry.engine.containers import restartpolicy
from wherry.errors import Conflict, NotModified
from wherry.model.container import ContainerConfig, ContainerState, HostConfig
from wherry.model.signals import parse_signal

UNKNOWN = 255
"""The exit code of a container that ended in an unknown way, as in Docker."""

_GRACE = 10.0
"""Docker's default time between the stop signal and KILL."""
_AFTER_KILL = 30.0
"""A process that waits for a device or a file server can take this long to end after KILL."""
_KILL_ALONE = 10.0
"""The time that ``kill`` waits for the end of a container that received KILL."""


@dataclass(frozen=True)
class Asked:
    """What was asked for before the exit: the fields of :class:`~wherry.engine.live.Live`, and ``closing``.

    :ivar closing: the daemon is stopping.
    """

    stopping: bool = False
    removing: bool = False
    coming_back: bool = False
    restart_after: float | None = None
    closing: bool = False


class ExitStep(Enum):
    """What is done after an exit. :attr:`AfterExit.steps` has the order."""

    SAVE = "write the new state into the row"
    PUBLISH = "publish the event die"
    RELEASE = "give back addresses, ports, volumes and the mounted layer"
    ANSWER = "answer the clients that wait for the exit"
    REMOVE = "remove the container, as --rm asks"
    FORGET = "remove what only the ended task used"
    FIT_LOGS = "apply the limits of the log's size"
    RESTART = "start the timer of the next start"


@dataclass(frozen=True)
class AfterExit:
    """The decision. ``delay``: seconds until the next start; ``None``: there is none."""

    state: ContainerState
    delay: float | None
    steps: tuple[ExitStep, ...]
    ran: int
    """Seconds between start and exit, which the event ``die`` reports."""


def after_exit(
    host: HostConfig, state: ContainerState, asked: Asked, *, exit_code: int, finished_at: int
) -> AfterExit:
    """What follows the exit of a container whose row still says that it runs.

    Saving comes first: whoever is told of the exit, by the event or as a waiter, may ask for the state.
    Waiters come after the release, so that they can use the port or the volume again, and before the removal,
    which answers those that wait for it. The container's lock is held until the last step, so a next start
    waits for all of them.
    """
    settled = replace(
        state,
        status="exited",
        pid=0,
        conmon_pid=0,
        exit_code=exit_code,
        finished_at=finished_at,
        manually_stopped=asked.stopping and asked.restart_after is None,
        comes_back=asked.restart_after is not None,
    )
    settled, delay = come_back(host, settled, asked)
    steps = [ExitStep.SAVE, ExitStep.PUBLISH, ExitStep.RELEASE, ExitStep.ANSWER]
    if delay is None and host.auto_remove and not asked.coming_back:
        steps.append(ExitStep.REMOVE)
    steps += [ExitStep.FORGET, ExitStep.FIT_LOGS]
    if delay is not None:
        steps.append(ExitStep.RESTART)
    ran = max(0, finished_at - state.started_at) // 10**9
    return AfterExit(settled, delay, tuple(steps), ran)


def come_back(host: HostConfig, state: ContainerState, asked: Asked) -> tuple[ContainerState, float | None]:
    """The state to show after an exit with ``state``, and the seconds until the next start, if there is one.

    A container that will be started again is never shown as exited.
    """
    delay = _next_start(host, state, asked)
    if delay is None:
        return state, None
    return replace(state, status="restarting", restart_count=state.restart_count + 1), delay


def _next_start(host: HostConfig, state: ContainerState, asked: Asked) -> float | None:
    if asked.removing or asked.closing:
        return None
    if asked.restart_after is not None or asked.stopping:
        return asked.restart_after
    return restartpolicy.delay(host, state)


def failed_start(
    host: HostConfig,
    state: ContainerState,
    asked: Asked,
    *,
    exit_code: int,
    error: str,
    restart_count: int,
    now: int,
) -> tuple[ContainerState, float | None]:
    """The state after a start that failed, and the seconds until the next try.

    Only a restart is tried again: the caller of a first start has the error, and decides.

    :param restart_count: 0: a client asked for this start; otherwise it was the restart with this number.
    """
    failed = replace(
        state,
        status="exited" if state.started_at else "created",
        pid=0,
        conmon_pid=0,
        exit_code=exit_code,
        error=error,
    )
    if not restart_count:
        return failed, None
    return come_back(host, replace(failed, finished_at=now), asked)


def ended_badly(state: ContainerState, reason: str, now: int) -> ContainerState:
    """The state after an exit whose clean-up failed; what was recorded before the failure stays."""
    if state.status in ("exited", "restarting"):
        return state
    return replace(
        state,
        status="exited",
        pid=0,
        conmon_pid=0,
        exit_code=UNKNOWN,
        error=reason,
        finished_at=now,
    )


def without_restart(state: ContainerState) -> ContainerState:
    """The state of a container that waited for its restart when a client stopped it."""
    return replace(state, status="exited", manually_stopped=True, comes_back=False)


# ---- start, stop, kill ---------------------------------------------------------------------------------


def check_startable(status: str, *, removing: bool, runs: bool) -> None:
    """:raises Conflict: it is paused or being removed. :raises NotModified: it runs. Docker's words."""
    if removing or status in ("removing", "dead"):
        raise Conflict("container is marked for removal and cannot be started")
    if status == "paused":
        raise Conflict("cannot start a paused container, try unpause instead")
    if runs:
        raise NotModified("container already started")
    if status == "running":  # the daemon before left it so, and it could not be inspected yet
        raise Conflict("cannot start the container: whether it runs is not known yet")


def waits_for_start(*, runs: bool, frozen: bool, locked: bool) -> bool:
    """Whether a signal must wait: for a start under way, whose process runs but cannot be signalled yet, or
    for whoever holds the container frozen."""
    return locked and (frozen or not runs)


@dataclass(frozen=True)
class Round:
    """One round of a stop: send ``signal``, then wait ``seconds`` for the exit; ``None``: for ever."""

    signal: int
    seconds: float | None


def stop_signal(config: ContainerConfig) -> int:
    return parse_signal(config.stop_signal or "TERM")


def stop_rounds(
    config: ContainerConfig, *, timeout: int | None = None, signal_name: str | None = None
) -> tuple[Round, ...]:
    """What a stop sends, and how long it waits after each signal.

    :param timeout: seconds until KILL. Negative: never. ``None``: the container's own timeout, else 10 s.
    :raises InvalidArgument: there is no such signal.
    """
    first = parse_signal(signal_name) if signal_name else stop_signal(config)
    grace = timeout if timeout is not None else config.stop_timeout
    seconds = _GRACE if grace is None else float(grace)
    if seconds < 0:
        return (Round(first, None),)
    return Round(first, seconds), Round(signal.SIGKILL, _AFTER_KILL)


@dataclass(frozen=True)
class Kill:
    """What ``kill`` does with one signal.

    :ivar counts_as_stop: the coming exit was asked for, so no restart policy applies.
    :ivar thaws: a paused container is thawed: a frozen process receives no signal (cgroup version 1).
    :ivar seconds: how long to wait for the exit; 0: not at all, as the process may survive the signal.
    """

    signal: int
    counts_as_stop: bool
    thaws: bool
    seconds: float


def kill(config: ContainerConfig, signal_name: str) -> Kill:
    """:raises InvalidArgument: there is no such signal."""
    number = parse_signal(signal_name or "KILL")
    own = config.stop_signal
    return Kill(
        number,
        counts_as_stop=number in (signal.SIGKILL, stop_signal(config)),
        thaws=number == signal.SIGKILL or not own or number == parse_signal(own),
        seconds=_KILL_ALONE if number == signal.SIGKILL else 0,
    )


# ---- wait, remove --------------------------------------------------------------------------------------


class Waits(Enum):
    """What a client's wait is for."""

    NOTHING = "it does not run: answer at once"
    EXIT = "the next exit"
    REMOVAL = "the removal"


def wait(condition: str, status: str, *, runs: bool) -> Waits:
    """:param condition: Docker's ``not-running``, ``next-exit`` or ``removed``."""
    if condition == "removed":
        return Waits.REMOVAL
    if condition == "next-exit" or runs or status == "restarting":
        return Waits.EXIT
    return Waits.NOTHING


def check_removable(wanted: str, status: str, *, removing: bool, force: bool) -> None:
    """:raises Conflict: it is being removed, or it runs and ``force`` is not set. Docker's words."""
    if removing:
        raise Conflict(f"removal of container {wanted} is already in progress")
    if force or status not in ("running", "paused", "restarting"):
        return
    rest = ": stop the container before removing or force remove"
    if status == "paused":
        rest = " and must be unpaused first"
    raise Conflict(f'cannot remove container "{wanted}": container is {status}{rest}')


def may_run_unseen(status: str, *, runs: bool) -> bool:
    """Whether a process may be left that the daemon does not watch:
    it could not inspect the container when it started."""
    return not runs and status in ("running", "paused")
