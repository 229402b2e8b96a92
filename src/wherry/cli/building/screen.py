"""The progress of a build: on a terminal a tree that is redrawn in place, elsewhere lines.

Messages are the daemon's: ``{"steps": […]}`` is the plan, ``{"step": …}`` a step's change, ``{"log": …}`` a
step's output; anything else is a pull's progress or a line to show.
"""

from __future__ import annotations

import os
import sys
import time

from wherry.cli.console import one_line, safe
from wherry.cli.terminal import device
from wherry.cli.terminal.progress import progress_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    Object = dict[str, Any]

_LOG_LINES = 6
_BLUE, _RED, _YELLOW, _DIM, _OFF = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
_TAIL = 20


class ScreenStep:
    """The state of one step. Times in seconds since the epoch."""

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


class BuildScreen:
    """Line by line: ``#3 [2/4] RUN make``, ``#3 0.51 …``, ``#3 DONE 1.2s``."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self.steps: dict[int, ScreenStep] = {}
        self._last = -1

    def put(self, message: Object) -> None:
        if "steps" in message:
            for one in message["steps"]:
                self.steps[one["Number"]] = ScreenStep(one["Number"], one_line(str(one["Name"])))
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

    def _log(self, step: ScreenStep, text: str) -> None:
        parts = (step.partial + text.replace("\r\n", "\n")).split("\n")
        step.partial = parts.pop()[-4096:]
        for line in parts:
            shown = safe(line.rpartition("\r")[2] or line.replace("\r", ""))
            step.lines.append(shown)
            self._printed(step, shown)
        del step.lines[:-_TAIL]

    def failures(self) -> list[str]:
        """The last lines of failed steps' output, to show below the error."""
        found: list[str] = []
        for step in self.steps.values():
            if step.status == "failed":
                found += ["------", f" > {step.name}:", *(f"{line}" for line in step.lines[-10:]), "------"]
        return found

    def close(self, outcome: str = "FINISHED") -> None:
        """There are no more messages."""

    def say(self, text: str) -> None:
        """Print a line after the end."""
        sys.stderr.write(text + "\n")

    # display

    def _planned(self) -> None: ...

    def _changed(self, step: ScreenStep) -> None:
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
            self._line(f"#{step.number} ERROR: {one_line(step.error.partition(chr(10))[0])}")

    def _begin(self, step: ScreenStep) -> None:
        if self._last >= 0:
            self._line("")
        self._last = step.number
        self._line(f"#{step.number} {step.name}")

    def _printed(self, step: ScreenStep, line: str) -> None:
        if self._last != step.number:
            self._line("")
            self._line(f"#{step.number} {step.name}")
            self._last = step.number
        self._line(f"#{step.number} {step.seconds:.3f} {line}")

    def _pull(self, message: Object) -> None:
        if not progress_text(message.get("progressDetail") or {}):
            identifier = f"{message['id']}: " if message.get("id") else ""
            self._line(one_line(f"{identifier}{message['status']}"))

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class RawScreen(BuildScreen):
    """``--progress rawjson``: prints the messages unchanged."""

    def put(self, message: Object) -> None:
        from wherry.client import jsonwire

        super().put(message)
        self._out.write(jsonwire.dumps(message) + "\n")

    def _changed(self, step: ScreenStep) -> None: ...

    def _printed(self, step: ScreenStep, line: str) -> None: ...

    def _line(self, text: str) -> None: ...


class SilentScreen(BuildScreen):
    """``--quiet``: only keeps what an error message needs."""

    def _line(self, text: str) -> None: ...


class TreeScreen(BuildScreen):
    """On a terminal: finished steps, and below them running steps with their last lines."""

    def __init__(self, title: str, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._title = title
        self._height = 0
        self._outcome = "FINISHED"
        self._begun = time.time()
        self._pulls: dict[str, str] = {}
        from threading import Event, Lock, Thread

        self._lock, self._over = Lock(), Event()
        self._thread = Thread(target=self._tick, daemon=True)
        self._thread.start()

    def put(self, message: Object) -> None:
        with self._lock:
            super().put(message)

    def close(self, outcome: str = "FINISHED") -> None:
        self._outcome = outcome
        self._over.set()
        self._thread.join()
        with self._lock:
            self._draw(final=True)

    def _tick(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                self._draw(final=False)

    def _changed(self, step: ScreenStep) -> None: ...

    def _printed(self, step: ScreenStep, line: str) -> None: ...

    def _line(self, text: str) -> None:
        self._pulls.setdefault(text, text)

    def _pull(self, message: Object) -> None:
        identifier = one_line(str(message.get("id") or message["status"]))
        bar = progress_text(message.get("progressDetail") or {})
        self._pulls[identifier] = one_line(f"{identifier}: {message['status']}") + (f" {bar}" if bar else "")

    def _draw(self, *, final: bool) -> None:
        rows, columns = device.size()
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
        state = self._outcome if final else f"{over}/{len(self.steps)}"
        lines = [_coloured(_BLUE, f"[+] {self._title} {time.time() - self._begun:.1f}s ({state})")]
        if not self.steps:
            lines += [f" => {text}" for text in list(self._pulls.values())[-10:]]
        for step in steps:
            mark = {"cached": "CACHED ", "failed": "ERROR ", "canceled": "CANCELED "}.get(step.status, "")
            color = {"failed": _RED, "canceled": _YELLOW, "running": ""}.get(step.status, _BLUE)
            text = f" => {mark}{step.name}"
            lines.append(f"{_coloured(color, text)}\0{step.seconds:.1f}s")
            if step.status == "running" or (step.status == "failed" and final):
                lines += [_coloured(_DIM, f" => => # {line}") for line in step.lines[-_LOG_LINES:]]
        return lines


def _coloured(colour: str, text: str) -> str:
    return f"{colour}{text}{_OFF}" if colour and not os.environ.get("NO_COLOR") else text


def _cut(line: str, columns: int) -> str:
    """Fit a line to the width: text after a NUL is right-aligned; colour codes have no width."""
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


_DISTRUST = (
    "certificate verify failed",
    "certificate_verify_failed",
    "self-signed certificate",
    "unknown authority",
)


def with_advice(failures: list[str]) -> list[str]:
    """The output of steps that failed, and what to do where a well-known error stands in it."""
    text = "\n".join(failures).lower()
    if not any(words in text for words in _DISTRUST):
        return failures
    return [
        *failures,
        "The step does not know who signs this network's certificates. Lend it the authority's, in no layer:",
        "  wherry build --secret id=ca,src=BUNDLE.crt ...   and in the Dockerfile",
        "  RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt ...",
    ]
