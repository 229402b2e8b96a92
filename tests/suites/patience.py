"""How much slower than usual the tests' machine is: one factor for every time after which something hangs."""

from __future__ import annotations

import os

_FACTOR = float(os.environ.get("WHERRY_TEST_PATIENCE", "1"))


def patiently(seconds: float) -> float:
    """``seconds``, as long as they take on this machine (``WHERRY_TEST_PATIENCE``, times as long)."""
    return seconds * _FACTOR
