"""For all tests: a limit of time, and nothing left behind that would go wrong later (``suites/alarm.py``,
``suites/hygiene.py``)."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import resume
from alarm import limit_of, limited
from faulttable import FaultTable
from hygiene import Hygiene, settle
from patience import patiently

_hygiene = Hygiene()
_LISTED = (Path(__file__).parent / "thorough.txt").read_text().splitlines()
_THOROUGH = tuple(line for line in _LISTED if line and not line.startswith("#"))
"""The beginnings of the names of thorough tests."""


_errors = 2
"""Where to say what must be seen even if the output of tests is being captured."""


def pytest_configure(config: pytest.Config) -> None:
    global _errors
    _errors = os.dup(
        2
    )  # nothing is captured at this moment; kept to the end, as a signal may come until then
    _hygiene.start()
    resume.register(config)
    config.pluginmanager.register(FaultTable(shown="fault" in config.option.markexpr))
    signal.signal(signal.SIGTERM, _end)
    if config.pluginmanager.hasplugin("xdist"):
        from xdist.workermanage import NodeManager

        NodeManager.EXIT_TIMEOUT = int(patiently(60))  # seconds for the workers to remove what they have made
    # In the background a shell has interrupts ignored, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    """Whoever is told to end says where it was, and removes what it has made, as at an interrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with tempfile.TemporaryFile() as file:  # in one piece, as all processes of the run say it at once
        file.write(f"\nended at {os.environ.get('PYTEST_CURRENT_TEST', 'no test')}\n".encode())
        file.flush()
        faulthandler.dump_traceback(file=file)
        file.seek(0)
        os.write(_errors, file.read())
    raise KeyboardInterrupt


def pytest_unconfigure() -> None:
    _hygiene.stop()


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = resume.left(items)
    for item in items:
        if item.nodeid.startswith(_THOROUGH):
            item.add_marker(pytest.mark.thorough)


def pytest_collection_finish() -> None:
    settle()
    # The fork server would go on after the test that began it; who tests with it makes one.
    if (children := sys.modules.get("wherry.storage.confined.children")) is not None:
        children.SERVER = None  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with limited(f"the set-up of {item.nodeid}", limit_of(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with limited(item.nodeid, limit_of(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with limited(f"the teardown of {item.nodeid}", limit_of(item)):
        try:
            return (yield)
        finally:
            _hygiene.judge(item)
