"""Loaded by every daemon that is tested (``PYTHONPATH``): SIGUSR2 has it collect its garbage and say so.

So what a test left there is seen in its log while that test runs. Where ``tests/mutants`` wants to know which
lines a test runs, it tells that as well; SIGUSR1 says that another test has begun.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

_first = True
_coverage: Any = None


def _collect(_number: int, _frame: object) -> None:
    global _first
    gc.collect()
    if _first:  # what it was started with stays, and need not be looked at again
        gc.freeze()
        _first = False
    if _coverage is not None:
        _coverage.save()
    os.write(2, b"garbage is collected\n")


def _test() -> str:
    return Path(os.environ["WHERRY_COVERAGE_CONTEXT"]).read_text()


def _switch(_number: int, _frame: object) -> None:
    _coverage.switch_context(_test())


if "WHERRY_COVERAGE_CONTEXT" in os.environ:
    import atexit

    sys.path.append(str(Path(__file__).parents[2] / "mutants"))
    import tracing

    _coverage = tracing.start(_test())
    signal.signal(signal.SIGUSR1, _switch)
    atexit.register(_coverage.save)

signal.signal(signal.SIGUSR2, _collect)
