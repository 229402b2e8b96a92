"""A suite that is in the middle of its work until somebody ends it (``test_killed_suite.py``)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from daemonlab import LabDaemon


@pytest.mark.kernel
def test_for_ever(daemon: LabDaemon) -> None:
    daemon.docker("network", "create", "never-removed").ok()
    argv = [
        "run",
        "-d",
        "--network",
        "never-removed",
        "-p",
        "127.0.0.1::80",
        "-v",
        "/data",
        "busybox",
        "sleep",
        "1000",
    ]
    daemon.docker(*argv).ok()
    place = Path(os.environ["HANGING_SUITE"])
    place.with_suffix(".new").write_text(str(daemon.base))
    place.with_suffix(".new").rename(place)
    time.sleep(600)
