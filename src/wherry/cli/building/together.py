"""Several builds on one screen: each step's name begins with the name of its build."""

from __future__ import annotations

import sys
import threading

from wherry.cli.building.screen import BuildScreen, with_advice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]


class PartScreen(BuildScreen):
    """The screen of one of the builds, which hands everything on to the common one."""

    def __init__(self, common: CommonScreen, name: str) -> None:
        super().__init__()
        self._common, self._name = common, name

    def put(self, message: Object) -> None:
        if "steps" in message:
            self._common.put({"steps": [self._renamed(one) for one in message["steps"]]})
        elif "step" in message:
            self._common.put({"step": self._renumbered(message["step"])})
        elif "log" in message:
            self._common.put({"log": self._renumbered(message["log"])})
        elif message.get("id"):
            self._common.put({**message, "id": f"{self._name} {message['id']}"})
        else:
            self._common.put(message)

    def say(self, text: str) -> None:
        self._common.note(text)

    def _renamed(self, step: Object) -> Object:
        name = str(step["Name"])
        shown = f"[{self._name} {name[1:]}" if name.startswith("[") else f"[{self._name}] {name}"
        return {**self._renumbered(step), "Name": shown}

    def _renumbered(self, one: Object) -> Object:
        return {**one, "Number": self._common.number(self._name, int(one["Number"]))}


class CommonScreen:
    """Safe to use from any thread."""

    def __init__(self, screen: BuildScreen) -> None:
        self._screen = screen
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, int], int] = {}
        self._notes: list[str] = []

    def part(self, name: str) -> PartScreen:
        """The screen for one build."""
        return PartScreen(self, name)

    def number(self, part: str, step: int) -> int:
        """The number that a step of a part has on this screen."""
        with self._lock:
            return self._numbers.setdefault((part, step), len(self._numbers) + 1)

    def put(self, message: Object) -> None:
        with self._lock:
            self._screen.put(message)

    def note(self, text: str) -> None:
        """A line to be printed when all have ended."""
        with self._lock:
            self._notes.append(text)

    def close(self, outcome: str = "FINISHED") -> None:
        """All have ended: print what failed, and the notes."""
        with self._lock:
            self._screen.close(outcome)
            for line in [*with_advice(self._screen.failures()), *self._notes]:
                sys.stderr.write(line + "\n")
