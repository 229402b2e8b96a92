"""Wait until containers meet the conditions of their dependents: started, healthy, completed.

There is no polling: the daemon's events tell when to check again.
"""

from __future__ import annotations

import time

from wherry.client import containers, jsonwire
from wherry.client.api import filters
from wherry.compose.places import ComposeError
from wherry.errors import NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]
    Lend = Callable[[], AbstractContextManager[Api]]

STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
RUNNING_OR_HEALTHY = "running_or_healthy"
UP_AT_ONCE = "up_at_once"
"""As :data:`RUNNING_OR_HEALTHY`; a container that its restart policy had to start again does not meet it."""
ENDED = "ended"
"""Never met: it can only become impossible, by an exit."""


class Unmet(ComposeError):
    """The condition can no longer be met."""


class TimedOut(ComposeError):
    """The condition was not met in time."""


def wait_for(lend: Lend, api: Api, container: str, condition: str, deadline: float | None = None) -> str:
    """Wait until one container meets the condition. :returns: its display name: Started, Healthy, Exited.

    :param lend: lends a second connection, for events.
    :param deadline: in the time of ``time.monotonic``.
    :raises Unmet: it ended, is unhealthy, has no health check, or failed.
    :raises TimedOut: the deadline passed.
    """
    met = _look(api, container, condition)
    if met:
        return met
    with lend() as other:
        given = {
            "container": [container],
            "event": ["health_status", "die", "start", "destroy", "kill", "stop"],
        }
        response = other.request("GET", "/events", query={"filters": filters(given)})
        try:
            for _ in _ticks(response, deadline):
                met = _look(
                    api, container, condition
                )  # the subscription to events comes first, so no change is missed
                if met:
                    return met
        finally:
            other.drop(response)
    raise TimedOut(f"timeout waiting for container {container}")


def _ticks(response: Any, deadline: float | None) -> Iterator[None]:
    """Yield once at first, then at every event; end at the deadline."""
    import select

    yield
    poll = select.poll()
    poll.register(response.connection.stream.fileno(), select.POLLIN)
    messages = _messages(response)
    while True:
        if not response.connection.buffered:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                return
        if next(messages, None) is None:
            raise Unmet("the daemon ended its events")
        yield


def _messages(response: Any) -> Iterator[Any]:
    while piece := response.read():
        yield from ([piece] if piece else [])


def _look(api: Api, container: str, condition: str) -> str:
    """The display name of a condition that is met; empty while it can still be met."""
    try:
        about = containers.inspect(api, container)
    except NotFound:
        raise Unmet(f"container {container} is gone") from None
    name = str(about.get("Name") or container).removeprefix("/")
    state = about.get("State") or {}
    status = str(state.get("Status") or "")
    if condition == COMPLETED:
        if status in ("exited", "dead"):
            code = int(state.get("ExitCode") or 0)
            if code:
                raise Unmet(f"container {name} exited ({code})")
            return "Exited"
        return ""
    if condition in (UP_AT_ONCE, ENDED) and (int(about.get("RestartCount") or 0) or status == "restarting"):
        raise Unmet(f"container {name} exited ({state.get('ExitCode')}) and was started again")
    if condition == STARTED:
        return "Started" if status in ("running", "paused", "exited") else ""
    return _healthy(name, state, condition)


def _healthy(name: str, state: Object, condition: str) -> str:
    if state.get("Status") in ("exited", "dead"):
        raise Unmet(f"container {name} exited ({state.get('ExitCode')})")
    health = (state.get("Health") or {}).get("Status") or "none"
    if health == "healthy" and condition != ENDED:
        return "Healthy"
    if health == "unhealthy":
        raise Unmet(f"container {name} is unhealthy")
    if condition == ENDED:
        return ""
    if health == "none":
        if condition in (RUNNING_OR_HEALTHY, UP_AT_ONCE):
            return "Started" if state.get("Running") and not state.get("Restarting") else ""
        raise Unmet(f"container {name} has no healthcheck configured")
    return ""


def exit_codes(api: Api, names: Sequence[str]) -> dict[str, int]:
    """The exit codes of containers that ended."""
    found = {}
    for name in names:
        try:
            found[name] = int((containers.inspect(api, name).get("State") or {}).get("ExitCode") or 0)
        except WherryError:
            continue
    return found


__all__ = [
    "COMPLETED",
    "ENDED",
    "HEALTHY",
    "RUNNING_OR_HEALTHY",
    "STARTED",
    "UP_AT_ONCE",
    "TimedOut",
    "Unmet",
    "jsonwire",
    "wait_for",
]
