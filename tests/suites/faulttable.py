"""The table at the end of ``make test-faults``: what was done to the daemon, how often, and what came of it.

A test says what it is a row of by ``@pytest.mark.fault("power cuts", "40 cuts")``; tests with the same words,
such as the parameters of one, are one row. Slow tests without that mark are a row a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_KEY = "fault"
_HEAD = ("what", "how many", "result", "time")
_RANKS = ("not run", "passed", "failed")


@dataclass
class Row:
    what: str
    count: str
    tests: int = 0
    worst: int = 0
    seconds: float = 0.0

    def cells(self) -> tuple[str, str, str, str]:
        minutes, seconds = divmod(round(self.seconds), 60)
        count = self.count or f"{self.tests} test{'' if self.tests == 1 else 's'}"
        return self.what, count, _RANKS[self.worst], f"{minutes}:{seconds:02}"


def of(item: pytest.Item) -> list[str] | None:
    """A test's row: what, and how many (empty: the number of tests tells). None if it has none."""
    mark = item.get_closest_marker("fault")
    if mark is not None:
        return [mark.args[0], mark.args[1] if len(mark.args) > 1 else ""]
    if item.get_closest_marker("slow") is None:
        return None
    return [item.path.stem.removeprefix("test_").replace("_", " "), ""]


class FaultTable:
    """A plugin of pytest's."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._rows: dict[tuple[str, str], Row] = {}
        self._seen: set[str] = set()

    @staticmethod
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        for item in items:
            if (row := of(item)) is not None:
                item.user_properties.append((_KEY, row))  # comes with the report, also from another process

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = dict(report.user_properties).get(_KEY)
        if not isinstance(found, list):
            return
        what, count = map(str, found)
        row = self._rows.setdefault((what, count), Row(what, count))
        row.seconds += report.duration
        if report.nodeid not in self._seen:
            self._seen.add(report.nodeid)
            row.tests += 1
        rank = 2 if report.failed else 1 if report.passed and report.when == "call" else 0
        row.worst = max(row.worst, rank)

    def lines(self) -> Iterator[str]:
        cells = [_HEAD, *(row.cells() for row in self._rows.values())]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
        for row in cells:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._shown and self._rows:
            terminalreporter.section("faults")
            for line in self.lines():
                terminalreporter.write_line(line)
