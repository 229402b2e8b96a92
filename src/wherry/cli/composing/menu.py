"""The keys of ``up`` at a terminal, and the line below the output that names them."""

from __future__ import annotations

import os
import select
import threading

from wherry.cli.command import Failure
from wherry.cli.composing import watching
from wherry.cli.console import can_draw, on_terminal
from wherry.cli.terminal.device import RawMode, key_by_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from wherry.cli.composing.logs import Printer
    from wherry.cli.composing.session import ComposeSession
    from wherry.compose.project import Project
    from wherry.compose.watching import Trigger


def possible() -> bool:
    """Whether keys can be read, and the line be drawn."""
    return on_terminal(0) and can_draw(1) and os.tcgetpgrp(0) == os.getpgrp()


class UpMenu:
    """``w`` switches the watch on and off, ``d`` leaves the containers to themselves.

    It is there while the ``with`` block lasts; the terminal is as it was afterwards.
    """

    def __init__(
        self,
        session: ComposeSession,
        project: Project,
        printer: Printer,
        *,
        detach: Callable[[], None],
        watched: Sequence[Trigger] = (),
    ) -> None:
        """:param detach: called on the menu's thread. :param watched: what to watch from the beginning."""
        self._session, self._project, self._printer, self._detach = session, project, printer, detach
        self._keys = RawMode(0, key_by_key)
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        self._watch: threading.Event | None = None
        self._watched = watched
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> UpMenu:
        self._keys.__enter__()
        if self._watched:
            self._watch = watching.begin(self._session, self._project, self._watched)
        self._draw()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._over, 1)
        self._thread.join()
        os.close(self._over)
        if self._watch is not None:
            self._watch.set()
        self._printer.footer("")
        self._keys.restore()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        while not any(fd == self._over for fd, _ in poll.poll()):
            pressed = os.read(0, 64)
            if not pressed:
                return
            if b"d" in pressed or b"D" in pressed:
                self._detach()
            elif b"w" in pressed or b"W" in pressed:
                self._toggle_watch()

    def _toggle_watch(self) -> None:
        if self._watch is not None:
            self._watch.set()
            self._watch = None
            self._printer.say("Watch disabled")
            self._draw()
            return
        try:
            found = watching.triggers_of(self._project, list(self._project.services))
        except Failure as e:
            self._printer.say(e.text)
            return
        self._watch = watching.begin(self._session, self._project, found)
        self._draw()

    def _draw(self) -> None:
        watch = "Disable" if self._watch is not None else "Enable"
        self._printer.footer(f"w {watch} Watch   d Detach")
