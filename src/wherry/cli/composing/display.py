"""The display of changes to containers: redrawn lines on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time

from wherry.cli.command import Failure
from wherry.cli.console import can_draw, one_line
from wherry.client import jsonwire
from wherry.client.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

EVERY = 0.1
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
MODES = ("auto", "tty", "plain", "json", "quiet")
_ENDS = frozenset(
    "Created Started Running Stopped Removed Healthy Exited Recreated Killed Restarted Paused Unpaused "
    "Pulled Pushed "
    "Built Skipped Exists Copied Error Warning Reloaded".split()
)
_WRONG = frozenset(("Error", "Interrupted", "Warning"))


class Display:
    """Receives events of objects: ``say("Container web-1", "Creating")``. Safe to call from several threads.

    This class shows nothing; its subclasses do.
    """

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, what: str, status: str, detail: str = "") -> None:
        """``status`` is one of Docker's words: Creating, Created, Error …"""

    def close(self) -> None:
        """There are no more events."""


class Plain(Display):
    """Prints one line for each event to stderr."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._lock = threading.Lock()

    def say(self, what: str, status: str, detail: str = "") -> None:
        text = one_line(f"{what}  {status}" if not detail else f"{what}  {status} {detail}")
        with self._lock:
            sys.stdout.flush()
            write_all(2, f" {self._prefix}{text}\n".encode("utf-8", "backslashreplace"))


class Json(Display):
    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._lock = threading.Lock()

    def say(self, what: str, status: str, detail: str = "") -> None:
        message: dict[str, object] = {"id": what, "status": status}
        if detail:
            message["text"] = detail
        if status == "Error":
            message["error"] = True
        if self._dry_run:
            message["dry-run"] = True
        with self._lock:
            write_all(2, jsonwire.dumps(message).encode() + b"\n")


class Tty(Display):
    """Every object has a line with a spinner and its seconds; a thread redraws them."""

    def __init__(self, prefix: str = "", colours: bool = True) -> None:
        self._prefix, self._colours = prefix, colours
        self._lines: dict[str, list[object]] = {}
        self._drawn = 0
        self._turn = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._begun = time.monotonic()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Display:
        self._thread = threading.Thread(target=self._draw_on, daemon=True)
        self._thread.start()
        return self

    def say(self, what: str, status: str, detail: str = "") -> None:
        with self._lock:
            now = time.monotonic()
            line = self._lines.setdefault(what, [status, detail, now, 0.0])
            line[0], line[1] = status, detail
            line[3] = now if status in _ENDS else 0.0

    def close(self) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        self._draw(last=True)

    def _draw_on(self) -> None:
        while not self._over.wait(EVERY):
            self._turn += 1
            self._draw()

    def _draw(self, *, last: bool = False) -> None:
        from wherry.cli.terminal import device

        height, width = device.size()
        height, width = height or 24, width or 80
        with self._lock:
            rows = list(self._lines.items())
            if not rows:
                return
            done = sum(1 for _what, line in rows if line[3])
            room = max(1, height - 3)
            if not last and len(rows) > room:
                going = [row for row in rows if not row[1][3]]
                rows = (going + [row for row in rows if row[1][3]][::-1])[:room]
            lines = [f"[+] Running {done}/{len(self._lines)}"]
            lines += [self._row(what, line, width) for what, line in rows]
            text = "\x1b[?25l" + (f"\x1b[{self._drawn}A\r" if self._drawn else "")
            text += "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
            if last:
                text += "\x1b[?25h"
            self._drawn = len(lines)
        try:
            write_all(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            self._over.set()

    def _row(self, what: str, line: list[object], width: int) -> str:
        status, detail, begun, ended = line
        seconds = (float(str(ended)) or time.monotonic()) - float(str(begun))
        mark, colour = SPINNER[self._turn % len(SPINNER)], "34"
        if ended:
            mark, colour = ("✘", "31") if status in _WRONG else ("✔", "32")
        body = one_line(f" {mark} {self._prefix}{what}  {status} {detail}".rstrip())
        right = f"{seconds:.1f}s"
        body = body[: max(10, width - len(right) - 2)]
        padding = " " * max(1, width - len(body) - len(right) - 1)
        if not self._colours:
            return body + padding + right
        return f"\x1b[{colour}m{body}\x1b[0m{padding}\x1b[34m{right}\x1b[0m"


def check(mode: str, ansi: str) -> None:
    """:raises Failure: one of them is unknown; with the plugin's message."""
    if mode not in MODES:
        raise Failure(f'unsupported --progress value "{mode}"')
    if ansi not in ("auto", "never", "always"):
        raise Failure(f'unknown value for --ansi: "{ansi}". Use "never"|"always"|"auto"')


def choose(mode: str, ansi: str, *, dry_run: bool, title: str = "") -> Display:
    """:raises Failure: there is no such mode."""
    check(mode, ansi)
    prefix = "DRY-RUN MODE -  " if dry_run else ""
    if mode == "quiet":
        return Display()
    if mode == "json":
        return Json(dry_run=dry_run)
    if mode == "tty" or (mode == "auto" and can_draw(2) and ansi != "never"):
        import os

        return Tty(prefix, ansi == "always" or not os.environ.get("NO_COLOR"))
    return Plain(prefix)
