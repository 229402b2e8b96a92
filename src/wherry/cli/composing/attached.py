"""``up`` in the foreground: start containers, show their output, and stop them on request.

One loop handles everything that happens: events of the daemon, the end of the start, an interrupt. A thread
reads each container's output.
"""

from __future__ import annotations

import queue
import signal
import threading

from wherry.cli.composing import logs
from wherry.cli.console import on_terminal
from wherry.client import containers, jsonwire
from wherry.client.api import filters
from wherry.compose import labels, running
from wherry.compose.state import ProjectContainer, may_still_end
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from wherry.cli.composing.session import ComposeSession
    from wherry.compose.project import Project
    from wherry.compose.watching import Trigger

    Object = dict[str, Any]

INTERRUPTED = 130
_LAST_WORDS = 30.0
"""Seconds to wait for a container's last output after its end is known. The log normally ends at once; this
is for a very busy machine."""


class Look:
    """How the output of a project's containers is shown."""

    def __init__(self, *, prefix: bool = True, colour: bool = True, timestamps: bool = False) -> None:
        self.prefix, self.colour, self.timestamps = prefix, colour, timestamps


class Attached:
    """``abort`` is "", "exit" or "failure": what stops all containers: nothing, the exit of one, or its
    failure."""

    def __init__(
        self,
        session: ComposeSession,
        project: Project,
        found: Mapping[str, Sequence[ProjectContainer]],
        shown: Collection[str],
        *,
        abort: str = "",
        exit_from: str = "",
        look: Look,
        watched: Sequence[Trigger] = (),
        menu: bool = False,
    ) -> None:
        """:param watched: files to watch; then continue when no container runs any more, because one may be
            started again.
        :param menu: read keys from the terminal (``menu``).
        """
        self._watched, self._menu = watched, menu
        self._session, self._project, self._found = session, project, found
        self._shown, self._abort, self._exit_from = set(shown), abort, exit_from
        self._timestamps = look.timestamps
        self._all = [one for some in found.values() for one in some]
        self._by_id = {one.id: one for one in self._all}
        names = [self._short(one) for one in self._all if one.service in self._shown]
        self._printer = logs.Printer(names, prefix=look.prefix, colour=look.colour)
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._alive = {one.id for one in self._all}
        """Containers that run, or whose start or end has not been reported by an event yet."""
        self._ends_reported: set[str] = set()
        self._before: dict[str, Object] = {}
        """The containers' states before the start."""
        self._readers: dict[str, threading.Thread] = {}
        self._ended_at = {one.id: _finished(one) for one in self._all}
        """The time from which a container's output is new, for ``since`` of its log."""
        self._started = self._leaving = False
        self._code: int | None = None

    def _short(self, container: ProjectContainer) -> str:
        return container.short_name(self._project.name)

    def run(self) -> int:
        """Run until the end. :returns: the exit code."""
        sessions = self._session.sessions
        visible = ", ".join(self._short(one) for one in self._all if one.service in self._shown)
        self._printer.say(f"Attaching to {visible}")
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with sessions.lend() as api:
                given = {"type": ["container"], "label": [f"{labels.PROJECT}={self._project.name}"]}
                response = api.request("GET", "/events", query={"filters": filters(given)})
                # From here on, every start and end causes an event. Find out now what ended before.
                self._before = self._states()
                threading.Thread(target=self._listen, args=(response,), daemon=True).start()
                for one in self._all:
                    if one.runs:
                        self._read(one, tail="0")
                threading.Thread(target=self._start, daemon=True).start()
                try:
                    with self._keys():
                        self._loop()
                except KeyboardInterrupt:
                    return self._stop(interrupted=True)
                finally:
                    api.drop(response)
            if self._abort and self._code is not None:
                self._stop(interrupted=False)
            return self._code or 0
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _keys(self) -> AbstractContextManager[object]:
        from contextlib import nullcontext

        if self._menu:
            from wherry.cli.composing.menu import UpMenu

            self._session.tell_by(self._printer.say)
            return UpMenu(
                self._session,
                self._project,
                self._printer,
                detach=lambda: self._news.put(("detach", None)),
                watched=self._watched,
            )
        if self._watched:
            from wherry.cli.composing import watching

            watching.begin(self._session, self._project, self._watched)
        return nullcontext()

    # events

    def _listen(self, response: Any) -> None:
        try:
            for event in jsonwire.messages(response):
                self._news.put(("event", event))
        except (WherryError, ValueError, OSError):
            pass
        self._news.put(("gone", None))

    def _start(self) -> None:
        from wherry.compose.reporting import ProjectReporter

        quiet = ProjectReporter(lambda *_words: None, self._session.warn, self._session.confirm)
        try:
            running.start(self._session.sessions, self._project, self._found, quiet, output=self._hook_output)
        except BaseException as e:  # the loop raises it
            self._news.put(("failed", e))
        else:
            self._news.put(("started", None))

    def _hook_output(self, name: str, data: bytes) -> None:
        short = name.removeprefix(f"{self._project.name}{self._project.separator}")
        self._printer.lines(f"{short} ->", [(1, line) for line in data.splitlines()])

    def _loop(self) -> None:
        while True:
            kind, what = self._news.get()
            if kind == "failed":
                raise what
            if kind == "gone":
                return
            if kind == "detach":
                self._leaving = True
            if kind == "started":
                self._started = True
                self._alive &= self._not_yet_over()
            if self._leaving and self._started:
                return
            if kind == "event" and self._take(what):
                return
            if self._started and not self._alive and not self._watched:
                return

    def _states(self) -> dict[str, Object]:
        """The state of each container, by id; removed containers are left out."""
        found: dict[str, Object] = {}
        with self._session.sessions.lend() as api:
            for one in self._all:
                try:
                    found[one.id] = containers.inspect(api, one.id).get("State") or {}
                except WherryError:
                    continue
        return found

    def _not_yet_over(self) -> set[str]:
        now = self._states()
        return {
            one.id
            for one in self._all
            if may_still_end(
                self._before.get(one.id), now.get(one.id), reported=one.id in self._ends_reported
            )
        }

    def _take(self, event: Object) -> bool:
        """Handle one event. :returns: whether ``up`` must end now."""
        identifier = str((event.get("Actor") or {}).get("ID") or event.get("id") or "")
        container = self._by_id.get(identifier)
        action = str(event.get("Action") or event.get("status") or "")
        if container is None and action == "start":
            container = self._newcomer(identifier, event)
        if container is None:
            return False
        if action == "start":
            self._alive.add(identifier)
            self._ends_reported.discard(identifier)
            self._read(container, since=self._ended_at.get(identifier, ""))
        elif action == "die":
            return self._ended(container, event)
        return False

    def _newcomer(self, identifier: str, event: Object) -> ProjectContainer | None:
        """A container that replaced another one meanwhile; None if it does not belong to these services."""
        own = (event.get("Actor") or {}).get("Attributes") or {}
        made = ProjectContainer({"Id": identifier, "Names": [f"/{own.get('name', '')}"], "Labels": own})
        if made.service not in self._found or made.oneoff:
            return None
        self._all.append(made)
        self._by_id[identifier] = made
        return made

    def _ended(self, container: ProjectContainer, event: Object) -> bool:
        self._ends_reported.add(container.id)
        moment = int(event.get("timeNano") or 0)
        self._ended_at[container.id] = f"{moment // 10**9}.{moment % 10**9:09d}"
        reader = self._readers.get(container.id)
        if reader is not None:
            reader.join(_LAST_WORDS)
        code = int(((event.get("Actor") or {}).get("Attributes") or {}).get("exitCode") or 0)
        if container.service in self._shown:
            self._printer.say(f"{self._short(container)} exited with code {code}")
        if self._restarts(container):
            return False
        self._alive.discard(container.id)
        if self._exit_from:
            if container.service == self._exit_from:
                self._code = code
                return True
            if self._code is None and self._abort == "exit":
                self._code = code
                return True
            return False
        if self._abort == "exit" or (self._abort == "failure" and code):
            self._code = code
            return True
        return False

    def _restarts(self, container: ProjectContainer) -> bool:
        try:
            with self._session.sessions.lend() as api:
                state = containers.inspect(api, container.id).get("State") or {}
        except WherryError:
            return False
        return bool(state.get("Restarting") or state.get("Running"))

    def _read(self, container: ProjectContainer, **since: str) -> None:
        if container.service not in self._shown:
            return
        reader = self._readers.get(container.id)
        if reader is not None and reader.is_alive():
            return
        thread = threading.Thread(
            target=logs.follow_quietly,
            args=(self._session.sessions, container, self._short(container), self._printer),
            kwargs={"timestamps": self._timestamps, **since},
            daemon=True,
        )
        self._readers[container.id] = thread
        thread.start()

    # the end

    def _stop(self, *, interrupted: bool) -> int:
        """Stop everything; a second interrupt kills."""
        if interrupted:
            if on_terminal(2):
                self._session.ctx.complain("")
            self._session.ctx.complain("Gracefully Stopping... press Ctrl+C again to force")
        else:
            self._session.ctx.complain("Aborting on container exit...")
        try:
            with self._session.display() as display:
                running.stop(
                    self._session.sessions,
                    self._project,
                    self._found,
                    self._session.report(display),
                    timeout=self._session.timeout,
                )
        except KeyboardInterrupt:
            self._kill()
        if self._exit_from and not interrupted:
            self._code = self._exit_code_of(self._exit_from)
        return INTERRUPTED if interrupted else self._code or 0

    def _exit_code_of(self, service: str) -> int | None:
        with self._session.sessions.lend() as api:
            for one in self._found.get(service, ()):
                try:
                    return int((containers.inspect(api, one.id).get("State") or {}).get("ExitCode") or 0)
                except WherryError:
                    continue
        return self._code

    def _kill(self) -> None:
        with self._session.display() as display, self._session.sessions.lend() as api:
            for one in self._all:
                display.say(f"Container {one.name}", "Killing")
                try:
                    containers.kill(api, one.id)
                except WherryError:
                    pass  # it ended meanwhile
                display.say(f"Container {one.name}", "Killed")


def _finished(container: ProjectContainer) -> str:
    """For a stopped container, the current time: only later output is new."""
    if container.state != "exited":
        return ""
    import time

    return f"{time.time():.9f}"
