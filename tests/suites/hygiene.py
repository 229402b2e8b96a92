"""What goes wrong where nobody can catch it fails the test that caused it.

That is an exception that cannot be raised to anybody (an unclosed socket, a coroutine that was never
awaited, an error in ``__del__``), what asyncio logs of tasks nobody asked about, and what stands in the log
of a daemon that is tested. Garbage is collected after each test: what was left shows then and not later.
"""

from __future__ import annotations

import gc
import logging
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

_SIGNS = re.compile(
    r"Traceback \(most recent call last\)|^Exception ignored|Warning: |was never awaited|never retrieved"
    r"|was destroyed but it is pending|^Fatal Python error",
    re.MULTILINE,
)
_RECORD = re.compile(r'^(?:time=|\{")', re.MULTILINE)
"""Where a line of the daemon's log begins; a traceback's lines are part of the one before."""


def records_of(text: str) -> list[str]:
    """A daemon's log, one text for each record with its traceback, and one for what is in between."""
    starts = [found.start() for found in _RECORD.finditer(text)]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True) if a < b]


def troubles_in(log: str, expected: list[re.Pattern[str]]) -> list[str]:
    """The records of a daemon's log that no test may cause, without those that match one of ``expected``."""
    return [
        record
        for record in records_of(log)
        if _SIGNS.search(record) and not any(pattern.search(record) for pattern in expected)
    ]


sources: list[Callable[[], list[str]]] = []
"""Asked after each test: what else went wrong during it."""


class Hygiene(logging.Handler):
    """What was found since it was last asked."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._before: Any = None

    def start(self) -> None:
        self._before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        logging.getLogger("asyncio").addHandler(self)

    def stop(self) -> None:
        sys.unraisablehook = self._before
        logging.getLogger("asyncio").removeHandler(self)

    def _unraisable(self, what: sys.UnraisableHookArgs) -> None:
        text = str(what.exc_value) if what.exc_type is ResourceWarning else ""
        if "/wherry.sock" in text and "docker" in sys.modules:
            return  # Docker's SDK leaves the connection of a stream that it took over to the collector
        where = f"{what.err_msg or 'Exception ignored in'}: {what.object!r}"
        lines = traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback)
        self.found.append("\n".join([where, *(line.rstrip() for line in lines)]))

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"asyncio says: {logging.Formatter().format(record)}")

    def collect(self) -> None:
        """Let go of everything that nobody holds any more."""
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):  # the failed test's frames, with everything in them
                setattr(sys, name, None)
        gc.collect()

    def judge(self, item: pytest.Item) -> None:
        """Fail where something was found."""
        self.collect()
        found, self.found = self.found, []
        others = [re.compile(mark.args[0]) for mark in item.iter_markers("leaves")]
        found = [text for text in found if not any(pattern.search(text) for pattern in others)]
        for source in sources:
            found += source()
        if found:
            pytest.fail(f"{item.nodeid} left behind:\n\n" + "\n\n".join(found), pytrace=False)


def settle() -> None:
    """What is loaded by now stays, so collecting after each test need not look at it."""
    gc.collect()
    gc.freeze()
