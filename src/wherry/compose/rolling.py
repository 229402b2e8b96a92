"""``up --rolling``: replace a service's containers one after the other, while the service goes on to answer.

A new container starts in standby: without published ports, aliases and host name, so nobody finds it. When it
is healthy it takes these over from the old one, whose connections may end; then the old one is stopped. Old
containers are removed only when the whole service has been replaced. If a new one does not get healthy, those
that were replaced before come back.

``deploy.update_config`` says how: ``monitor`` is how long a container without a health check must run to
count as healthy (five seconds if it is not given), ``delay`` the pause between two containers.
"""

from __future__ import annotations

import time

from wherry.client import containers
from wherry.compose import running, waiting
from wherry.compose.places import ComposeError
from wherry.compose.scalars import duration
from wherry.compose.work import one_by_one
from wherry.errors import NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.converge import Converger
    from wherry.compose.project import Project
    from wherry.compose.state import ProjectContainer, Replacement
    from wherry.compose.work import DaemonSessions

_MONITOR = 5.0
_GRACE = 10
"""Seconds that connections have to end, as ``stop_grace_period`` if that is not given."""


def check(project: Project, name: str) -> None:
    """:raises ComposeError: two containers of the service cannot run beside each other."""
    service = project.services[name]
    mode = str(service.get("network_mode") or "")
    if mode and mode != "bridge":
        raise ComposeError(
            f"services.{name}.network_mode: {mode}: up --rolling needs a network of the container's own"
        )
    for network, settings in (service.get("networks") or {}).items():
        fixed = [key for key in ("ipv4_address", "ipv6_address", "mac_address") if (settings or {}).get(key)]
        if fixed:
            raise ComposeError(
                f"services.{name}.networks.{network}.{fixed[0]}: up --rolling runs two containers at a time, "
                "and only one can have it"
            )
    if service.get("mac_address"):
        raise ComposeError(
            f"services.{name}.mac_address: up --rolling runs two containers at a time, "
            "and only one can have it"
        )
    for other, using in project.services.items():
        shared = [key for key in ("network_mode", "ipc", "pid") if using.get(key) == f"service:{name}"]
        if any(one.partition(":")[0] == name for one in using.get("volumes_from") or ()):
            shared.append("volumes_from")
        if shared:
            raise ComposeError(
                f"services.{other}.{shared[0]} uses a container of {name}: up --rolling cannot replace {name}"
            )


def roll(sessions: DaemonSessions, project: Project, converger: Converger, wait: float | None = None) -> None:
    """Replace what the converger left, dependencies first.

    :param wait: seconds in which a new container must get healthy; None: as long as its health check takes.
    :raises WherryError: one did not get healthy; its service is as it was before.
    """
    pending = {name: pairs for name, pairs in converger.rolling.items() if pairs}
    needs = {name: list(project.dependencies(name)) for name in pending}

    def one(api: Api, name: str) -> None:
        _Roll(sessions, api, project, converger, name, wait).run(pending[name])

    one_by_one(sessions, needs, one)  # in this thread, where an interrupt comes and is undone


class _Roll:
    """The containers of one service."""

    def __init__(
        self,
        sessions: DaemonSessions,
        api: Api,
        project: Project,
        converger: Converger,
        name: str,
        wait: float | None,
    ) -> None:
        self._sessions, self._api, self._project, self._converger = sessions, api, project, converger
        self._name, self._wait = name, wait
        self._service = converger.service(name)
        update = (self._service.get("deploy") or {}).get("update_config") or {}
        self._monitor = _seconds(update, "monitor", _MONITOR)
        self._delay = _seconds(update, "delay", 0.0)
        self._done: list[Replacement] = []

    def run(self, pairs: Sequence[Replacement]) -> None:
        plan = self._converger.plan
        if plan.dry_run:
            for pair in pairs:
                self._say(pair.old, "Recreated")
            return
        try:
            for position, pair in enumerate(pairs):
                if position and self._delay:
                    time.sleep(self._delay)
                self._replace(pair)
        except BaseException as e:
            self._go_back()
            if isinstance(e, WherryError):
                raise type(e)(f"service {self._name}: {e.message}; its former containers run on") from e
            raise
        for pair in self._done:
            assert pair.new is not None
            _remove(self._api, pair.old.id)
            self._converger.adopt(self._api, self._name, pair.old, pair.new)

    def _replace(self, pair: Replacement) -> None:
        shown = self._converger.shown_name(self._name, pair.old)
        try:
            new = pair.new = pair.new or self._converger.make_replacement(self._api, self._name, pair.old)
            self._say(pair.old, "Starting")
            if not new.runs:
                containers.start_in_standby(self._api, new.id)
                for hook in self._service.get("post_start") or ():
                    running.run_hook(self._api, new, hook, "post_start", None)
            self._say(pair.old, "Waiting")
            self._await(new)
            self._done.append(pair)
        except BaseException as e:
            reason = e.message if isinstance(e, WherryError) else "interrupted"
            self._converger.report.container(shown, "Error", reason)
            if not isinstance(e, WherryError):
                self._api.close()  # a request may have been cut off: the next one takes another connection
            # The daemon may have made it although its answer did not come.
            name = self._converger.temporary_name(self._name, pair.old)
            _remove(self._api, pair.new.id if pair.new is not None else name)
            raise
        grace = self._service.get("stop_grace_period")
        drain = duration(grace) // 10**9 if grace else _GRACE
        containers.take_over(self._api, new.id, pair.old.id, drain=max(0, drain))
        running.stop_one(
            self._api,
            pair.old,
            self._service,
            self._converger.report,
            timeout=self._converger.plan.timeout,
        )
        self._say(pair.old, "Recreated")

    def _await(self, new: ProjectContainer) -> None:
        """:raises ComposeError: it is not healthy, or did not stay up."""
        deadline = None if self._wait is None else time.monotonic() + self._wait
        lend = self._sessions.lend
        try:
            word = waiting.wait_for(lend, self._api, new.id, waiting.UP_AT_ONCE, deadline)
        except waiting.TimedOut:
            raise ComposeError(f"container {new.name} is not healthy after {self._wait:g} s") from None
        if word == "Healthy":
            return
        try:
            waiting.wait_for(lend, self._api, new.id, waiting.ENDED, time.monotonic() + self._monitor)
        except waiting.TimedOut:
            return

    def _go_back(self) -> None:
        """Let the old containers take their places again; whatever goes wrong, go on with the next."""
        for pair in reversed(self._done):
            assert pair.new is not None
            try:
                if not _runs(self._api, pair.old):
                    containers.start_in_standby(self._api, pair.old.id)
                containers.take_over(self._api, pair.old.id, pair.new.id, drain=_GRACE)
            except WherryError as e:
                # The new one was healthy a moment ago; it is better than none.
                self._converger.report.warn(f"cannot go back to container {pair.old.name}: {e.message}")
                continue
            _remove(self._api, pair.new.id)
            self._say(pair.old, "Running")

    def _say(self, container: ProjectContainer, word: str) -> None:
        self._converger.report.container(self._converger.shown_name(self._name, container), word)


def _seconds(update: Mapping[str, Any], key: str, default: float) -> float:
    return duration(str(update[key])) / 10**9 if update.get(key) else default


def _runs(api: Api, container: ProjectContainer) -> bool:
    return bool((containers.inspect(api, container.id).get("State") or {}).get("Running"))


def _remove(api: Api, container: str) -> None:
    try:
        containers.remove(api, container, force=True)
    except NotFound:
        pass
