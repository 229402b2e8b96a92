"""What a build does, on a terminal as a tree that is drawn over in place, elsewhere line by line.

Messages are the daemon's: ``{"steps": […]}`` the plan, ``{"step": …}`` a change of one, ``{"log": …}`` what
one prints; anything else is a pull's progress or a line to be shown.
"""

from __future__ import annotations

import sys
import time

from wherry.cli import terminal
from wherry.cli.command import safe
from wherry.cli.progress import progress_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    Object = dict[str, Any]

_LOG_LINES = 6
_BLUE, _RED, _YELLOW, _DIM, _OFF = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
_TAIL = 20


class Step:
    """One step as it is known here. Times in seconds since the epoch."""

    __slots__ = ("error", "finished", "lines", "name", "number", "partial", "shown", "started", "status")

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name, self.status = number, name, "waiting"
        self.started = self.finished = 0.0
        self.lines: list[str] = []
        self.partial = ""
        self.error = ""
        self.shown = False

    @property
    def seconds(self) -> float:
        return (self.finished or time.time()) - self.started if self.started else 0.0


class Screen:
    """Line by line: ``#3 [2/4] RUN make``, ``#3 0.51 …``, ``#3 DONE 1.2s``."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self.steps: dict[int, Step] = {}
        self._last = -1

    def put(self, message: Object) -> None:
        if "steps" in message:
            for one in message["steps"]:
                self.steps[one["Number"]] = Step(one["Number"], safe(str(one["Name"])))
            self._planned()
        elif "step" in message:
            self._change(message["step"])
        elif "log" in message:
            step = self.steps.get(message["log"]["Number"])
            if step is not None:
                self._log(step, str(message["log"]["Text"]))
        elif message.get("stream"):
            self._line(safe(str(message["stream"])).rstrip("\n"))
        elif message.get("status"):
            self._pull(message)

    def _change(self, change: Object) -> None:
        step = self.steps.get(change["Number"])
        if step is None:
            return
        step.status = str(change["Status"])
        step.started = change.get("Started", 0) / 1e9 or step.started
        step.finished = change.get("Finished", 0) / 1e9 or step.finished
        step.error = str(change.get("Error", ""))
        if step.status in ("done", "failed") and step.partial:
            self._log(step, "\n")
        self._changed(step)

    def _log(self, step: Step, text: str) -> None:
        parts = (step.partial + text.replace("\r\n", "\n")).split("\n")
        step.partial = parts.pop()[-4096:]
        for line in parts:
            shown = safe(line.rpartition("\r")[2] or line.replace("\r", ""))
            step.lines.append(shown)
            self._printed(step, shown)
        del step.lines[:-_TAIL]

    def failures(self) -> list[str]:
        """The end of what failed steps printed, for below the error."""
        found: list[str] = []
        for step in self.steps.values():
            if step.status == "failed":
                found += ["------", f" > {step.name}:", *(f"{line}" for line in step.lines[-10:]), "------"]
        return found

    def close(self) -> None:
        """Nothing more will come."""

    # how it is shown

    def _planned(self) -> None: ...

    def _changed(self, step: Step) -> None:
        if step.status == "running" or not step.shown:
            step.shown = True
            self._begin(step)
        if step.status == "cached":
            self._line(f"#{step.number} CACHED")
        elif step.status == "done":
            self._line(f"#{step.number} DONE {step.seconds:.1f}s")
        elif step.status == "canceled":
            self._line(f"#{step.number} CANCELED")
        elif step.status == "failed":
            self._line(f"#{step.number} ERROR: {safe(step.error.partition(chr(10))[0])}")

    def _begin(self, step: Step) -> None:
        if self._last >= 0:
            self._line("")
        self._last = step.number
        self._line(f"#{step.number} {step.name}")

    def _printed(self, step: Step, line: str) -> None:
        if self._last != step.number:
            self._line("")
            self._line(f"#{step.number} {step.name}")
            self._last = step.number
        self._line(f"#{step.number} {step.seconds:.3f} {line}")

    def _pull(self, message: Object) -> None:
        if not progress_text(message.get("progressDetail") or {}):
            identifier = f"{message['id']}: " if message.get("id") else ""
            self._line(safe(f"{identifier}{message['status']}"))

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class RawScreen(Screen):
    """``--progress rawjson``: the messages themselves."""

    def put(self, message: Object) -> None:
        from wherry.client import jsonwire

        super().put(message)
        self._out.write(jsonwire.dumps(message) + "\n")

    def _changed(self, step: Step) -> None: ...

    def _printed(self, step: Step, line: str) -> None: ...

    def _line(self, text: str) -> None: ...


class SilentScreen(Screen):
    """``--quiet``: remembers what is needed for an error."""

    def _line(self, text: str) -> None: ...


class TreeScreen(Screen):
    """On a terminal: running steps with their last lines, below those that are over."""

    def __init__(self, title: str, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._title = title
        self._height = 0
        self._begun = time.time()
        self._pulls: dict[str, str] = {}
        from threading import Event, Lock, Thread

        self._lock, self._over = Lock(), Event()
        self._thread = Thread(target=self._tick, daemon=True)
        self._thread.start()

    def put(self, message: Object) -> None:
        with self._lock:
            super().put(message)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            self._draw(final=True)

    def _tick(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                self._draw(final=False)

    def _changed(self, step: Step) -> None: ...

    def _printed(self, step: Step, line: str) -> None: ...

    def _line(self, text: str) -> None:
        self._pulls.setdefault(text, text)

    def _pull(self, message: Object) -> None:
        identifier = safe(str(message.get("id") or message["status"]))
        bar = progress_text(message.get("progressDetail") or {})
        self._pulls[identifier] = safe(f"{identifier}: {message['status']}") + (f" {bar}" if bar else "")

    def _draw(self, *, final: bool) -> None:
        rows, columns = terminal.size()
        rows, columns = rows or 24, columns or 80
        lines = self._lines(final)
        if not final and len(lines) > rows - 1:
            lines = [lines[0], *lines[-(rows - 2) :]]
        text = "".join(f"\x1b[2K{_cut(line, columns)}\n" for line in lines)
        up = f"\x1b[{self._height}A\r" if self._height else ""
        self._out.write(f"{up}{text}\x1b[J")
        self._out.flush()
        self._height = len(lines)

    def _lines(self, final: bool) -> list[str]:
        steps = [s for s in self.steps.values() if s.status != "waiting"]
        over = sum(s.status in ("done", "cached", "failed", "canceled") for s in steps)
        state = "FINISHED" if final else f"{over}/{len(self.steps)}"
        lines = [f"{_BLUE}[+] {self._title} {time.time() - self._begun:.1f}s ({state}){_OFF}"]
        if not self.steps:
            lines += [f" => {text}" for text in list(self._pulls.values())[-10:]]
        for step in steps:
            mark = {"cached": "CACHED ", "failed": "ERROR ", "canceled": "CANCELED "}.get(step.status, "")
            color = {"failed": _RED, "canceled": _YELLOW, "running": ""}.get(step.status, _BLUE)
            text = f" => {mark}{step.name}"
            lines.append(f"{color}{text}{_OFF if color else ''}\0{step.seconds:.1f}s")
            if step.status == "running" or (step.status == "failed" and final):
                lines += [f"{_DIM} => => # {line}{_OFF}" for line in step.lines[-_LOG_LINES:]]
        return lines


def _cut(line: str, columns: int) -> str:
    """Fit a line: what follows a NUL goes to the right edge; colours count nothing."""
    left, nul, right = line.partition("\0")
    colors = left.startswith("\x1b")
    prefix, body = "", left
    if colors:
        end = left.index("m") + 1
        prefix, body = left[:end], left[end:].removesuffix(_OFF)
    room = columns - len(right) - (1 if nul else 0)
    body = body[: max(0, room - 1)]
    shown = f"{prefix}{body}{_OFF}" if colors else body
    return f"{shown}{' ' * max(1, columns - len(body) - len(right))}{right}" if nul else shown
