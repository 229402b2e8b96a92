"""Output of containers, each line behind its container's name."""

from __future__ import annotations

import sys
import threading

from wherry.cli.console import may_colour, one_line
from wherry.cli.terminal.manylogs import COLOURS, LogSource
from wherry.client import containers
from wherry.client.files import write_all
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.compose.state import ProjectContainer
    from wherry.compose.work import DaemonSessions

    Object = dict[str, Any]


class Printer:
    """Prints lines with prefixes of one width; safe to call from several threads."""

    def __init__(
        self, names: Sequence[str], *, prefix: bool = True, colour: bool = True, timestamps: bool = False
    ) -> None:
        self._prefix, self._timestamps = prefix, timestamps
        self._colour = colour and may_colour(1)
        self._width = max((len(name) for name in names), default=0)
        self._order: dict[str, int] = {}
        self._lock = threading.Lock()
        self._footer = b""
        for name in names:
            self._order.setdefault(name, len(self._order))

    def prefix(self, name: str) -> str:
        if not self._prefix:
            return ""
        number = self._order.setdefault(name, len(self._order))
        text = f"{one_line(name):<{self._width}}  | "
        return f"\x1b[{COLOURS[number % len(COLOURS)]}m{text}\x1b[0m" if self._colour else text

    def lines(self, name: str, found: Sequence[tuple[int, bytes]]) -> None:
        prefix = self.prefix(name).encode()
        with self._lock:
            for wanted in (1, 2):
                data = b"".join(prefix + line + b"\n" for descriptor, line in found if descriptor == wanted)
                if data:
                    sys.stdout.flush()
                    self._above_footer(wanted, data)

    def say(self, text: str) -> None:
        """Print a line that is not from a container."""
        with self._lock:
            self._above_footer(1, one_line(text).encode("utf-8", "backslashreplace") + b"\n")

    def footer(self, text: str) -> None:
        """Keep a line below everything that is printed, on a terminal; empty: none."""
        with self._lock:
            write_all(1, b"\r\x1b[2K" + text.encode())
            self._footer = text.encode()

    def _above_footer(self, descriptor: int, data: bytes) -> None:
        if not self._footer:
            write_all(descriptor, data)
            return
        write_all(1, b"\r\x1b[2K")
        write_all(descriptor, data)
        write_all(1, self._footer)


def follow(
    sessions: DaemonSessions,
    container: ProjectContainer,
    shown: str,
    printer: Printer,
    *,
    since: str = "",
    until: str = "",
    tail: str = "",
    timestamps: bool = False,
) -> None:
    """Print a container's output until it ends. :raises WherryError: its log cannot be read."""
    with sessions.lend() as api:
        about = containers.inspect(api, container.id)
        response = containers.logs(
            api, container.id, follow=True, since=since, until=until, tail=tail, timestamps=timestamps
        )
        tty = bool((about.get("Config") or {}).get("Tty"))
        for batch in LogSource(shown, b"", tty, response).batches():
            printer.lines(shown, batch)


def follow_quietly(*args: Any, **keywords: Any) -> None:
    """:func:`follow` for a thread: the log of a removed container is complete."""
    try:
        follow(*args, **keywords)
    except (WherryError, OSError, ValueError):
        pass
