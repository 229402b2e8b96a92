"""``logs --follow``: print the output of a project's containers until none of them runs."""

from __future__ import annotations

import threading

from wherry.cli.composing.logs import Printer, follow_quietly
from wherry.client import containers, jsonwire
from wherry.client.api import filters
from wherry.compose import labels
from wherry.compose.state import ProjectContainer
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.compose.work import DaemonSessions

    Object = dict[str, Any]


class Following:
    """One thread for each container reads its log; events announce containers that start later."""

    def __init__(
        self,
        sessions: DaemonSessions,
        project: str,
        printer: Printer,
        *,
        services: Sequence[str],
        timestamps: bool,
    ) -> None:
        self._sessions, self._project, self._printer = sessions, project, printer
        self._services, self._timestamps = services, timestamps
        self._readers: dict[str, threading.Thread] = {}

    def run(self, found: Sequence[ProjectContainer], query: Object) -> None:
        """:param query: ``since`` and ``tail`` for earlier output."""
        given = {
            "type": ["container"],
            "event": ["start", "die"],
            "label": [f"{labels.PROJECT}={self._project}"],
        }
        with self._sessions.lend() as api:
            response = api.request("GET", "/events", query={"filters": filters(given)})
            try:
                for one in found:
                    self._read(one, **query)
                alive = {one.id for one in found if one.runs}
                if alive:
                    self._watch(response, alive)
            finally:
                api.drop(response)
        for reader in self._readers.values():
            reader.join()

    def _watch(self, response: Any, alive: set[str]) -> None:
        for event in jsonwire.messages(response):
            actor = event.get("Actor") or {}
            own = actor.get("Attributes") or {}
            if self._services and own.get(labels.SERVICE) not in self._services:
                continue
            identifier = str(actor.get("ID"))
            if event.get("Action") == "start":
                alive.add(identifier)
                moment = int(event.get("timeNano") or 0)
                one = ProjectContainer(
                    {"Id": identifier, "Names": [f"/{own.get('name', '')}"], "Labels": own}
                )
                self._read(one, since=f"{moment // 10**9}.{moment % 10**9:09d}")
                continue
            if identifier in self._readers:
                self._readers[identifier].join()
            if not self._goes_on(identifier):
                alive.discard(identifier)
            if not alive:
                return

    def _goes_on(self, identifier: str) -> bool:
        """Whether an ended container will be started again."""
        try:
            with self._sessions.lend() as api:
                state = containers.inspect(api, identifier).get("State") or {}
        except WherryError:
            return False
        return bool(state.get("Running") or state.get("Restarting"))

    def _read(self, one: ProjectContainer, **more: Any) -> None:
        before = self._readers.get(one.id)
        if before is not None and before.is_alive():
            return
        self._readers[one.id] = threading.Thread(
            target=follow_quietly,
            args=(self._sessions, one, one.short_name(self._project), self._printer),
            kwargs={"timestamps": self._timestamps, **more},
            daemon=True,
        )
        self._readers[one.id].start()
