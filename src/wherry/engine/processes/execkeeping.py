"""Decide which execs are kept, whether one may start, and how a stop of one ends. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wherry.errors import Conflict, NotModified
from wherry.runtime.words import EXIT_FAILED as _START_FAILED

EXIT_FAILED = 126
"""Docker's exit code for an exec that could not be started; a container's start uses 128."""

EXIT_UNKNOWN = 137
"""The exit code of an exec whose conmon left none: both were killed."""

_ENDED_MOST = 256
"""The number of ended execs per container whose result can still be inspected."""

_WAITING_MOST = 1024
_WAITING_SIZE = 16 << 20
"""Execs per container that are not started yet, and the total bytes of their configurations. A client can
create any number of them (CVE-2025-64329), so the oldest are dropped."""

_GRACE = 10.0
"""Seconds between TERM and KILL, the same as for a container."""


class Kept(Protocol):
    """What the rules look at: see ``execs.Exec``."""

    @property
    def id(self) -> str: ...
    @property
    def started(self) -> bool: ...
    @property
    def running(self) -> bool: ...
    @property
    def left(self) -> bool: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def size(self) -> int: ...


def to_forget(execs: Sequence[Kept]) -> list[str]:
    """Ids of the execs to drop: the oldest that have ended, and the oldest that were never started.

    :param execs: all of a container's, oldest first.
    """
    ended = [e.id for e in execs if e.started and not (e.running or e.left)]
    return [*ended[:-_ENDED_MOST], *_waited_too_long([e for e in execs if not e.started])]


def _waited_too_long(waiting: Sequence[Kept]) -> list[str]:
    """Those that are not among the newest that fit the limits. The newest one always stays."""
    size, kept = 0, 0
    for execution in reversed(waiting):
        size += execution.size
        if kept and (kept == _WAITING_MOST or size > _WAITING_SIZE):
            break
        kept += 1
    return [e.id for e in waiting[: len(waiting) - kept]]


def check_container(container_id: str, wanted: str, status: str, *, runs: bool) -> None:
    """:param wanted: what the client calls it.
    :raises Conflict: the container does not run, or is paused. Docker's words.
    """
    if not runs:
        raise Conflict(f"container {container_id} is not running")
    if status == "paused":
        raise Conflict(f"Container {wanted} is paused, unpause the container before exec")


def check_new(execution: Kept) -> None:
    """:raises Conflict: it was started before."""
    if execution.started:
        runs = execution.running or execution.exit_code is None
        how = "is already running" if runs else "has already run"
        raise Conflict(f"exec command {execution.id} {how}")


def failed_code(runtime_code: int) -> int:
    """The exit code to show for an exec whose start failed with the runtime's ``runtime_code``."""
    return EXIT_FAILED if runtime_code == _START_FAILED else runtime_code


def grace(timeout: int | None) -> float | None:
    """Seconds between TERM and KILL; ``None``: no KILL. A negative ``timeout`` waits for ever."""
    if timeout is None:
        return _GRACE
    return None if timeout < 0 else float(timeout)


def check_stoppable(container_id: str, status: str, *, alive: bool) -> None:
    """:raises Conflict: its container is paused. :raises NotModified: none of its processes runs.

    :param alive: one of its processes runs, not necessarily the first.
    """
    if status == "paused":
        raise Conflict(f"container {container_id} is paused, unpause the container first")
    if not alive:
        raise NotModified("exec already stopped")
