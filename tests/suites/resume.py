"""A run of the tests that goes on where another one was cut off (``.ci/run``).

``WHERRY_TEST_PASSED`` names a file, to which the name of each test that has passed is added, one a line;
``WHERRY_TEST_DONE`` one with the names of tests that need not run again.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class PassedTests:
    """Writes down what has passed. With pytest-xdist it works in the process that hears of all tests."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._bad: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._bad.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid not in self._bad:
            self._file.write(f"{report.nodeid}\n")

    def pytest_unconfigure(self) -> None:
        self._file.close()


def register(config: pytest.Config) -> None:
    path = os.environ.get("WHERRY_TEST_PASSED")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(PassedTests(Path(path)))


def left(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests that are still to be run."""
    path = os.environ.get("WHERRY_TEST_DONE")
    done = set(Path(path).read_text().splitlines()) if path else set()
    return [item for item in items if item.nodeid not in done]
