"""A pytest plugin: which lines every test runs, in the tests' own process and in the daemons that they start.

``WHERRY_COVERAGE`` names a directory: each process writes ``data.*`` there (coverage's files, with the tests'
ids as contexts), and ``context.<pid>`` tells the daemons of a tests' process which test it is at.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import coverage
import pytest
from tracing import start

_place = Path(os.environ["WHERRY_COVERAGE"])
_context = _place / f"context.{os.getpid()}"


_coverage: coverage.Coverage | None = None


def pytest_configure() -> None:
    global _coverage
    os.environ["WHERRY_COVERAGE_CONTEXT"] = str(_context)
    _context.write_text("")
    _coverage = start("")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str) -> None:
    assert _coverage is not None
    _context.write_text(nodeid)
    _coverage.switch_context(nodeid)
    lab = sys.modules.get("daemonlab")
    for daemon in lab._daemons if lab is not None else ():
        if daemon._ready and daemon.process is not None and daemon.process.poll() is None:
            os.kill(daemon.process.pid, signal.SIGUSR1)


def pytest_unconfigure() -> None:
    if _coverage is not None:
        _coverage.stop()
        with warnings.catch_warnings():  # the one who only hands out tests runs nothing
            warnings.simplefilter("ignore")
            _coverage.save()
