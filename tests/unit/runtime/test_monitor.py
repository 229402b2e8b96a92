"""A monitor that waits until it is told to go on, against a program that does what conmon does with its
pipes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wherry.errors import Internal
from wherry.runtime.monitor import Monitor

CONMON = """
import os, sys
start, sync = (int(os.environ[f"_OCI_{name}PIPE"]) for name in ("START", "SYNC"))
open(sys.argv[1] + ".pid", "w").write(str(os.getpid()))
if "dies" in sys.argv: sys.exit("no room")
os.read(start, 1)
if "dumb" in sys.argv: sys.exit(0)
assert os.path.isdir(sys.argv[1] + "/exits")
os.write(sync, b'{"data": 42}\\n')
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


def begin(bundle: Path, *words: str) -> Monitor:
    return Monitor([sys.executable, "-c", CONMON, str(bundle), *words], bundle, {"A": "b"})


def test_it_waits_for_the_bundle(bundle: Path) -> None:
    monitor = begin(bundle)
    bundle.mkdir()
    assert monitor.go().data == 42
    monitor.close()


def test_one_that_is_not_needed_is_gone(bundle: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monitor = begin(bundle)
    pid = monitor._launch._process.pid
    monitor.close()
    monitor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # not even a zombie
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_ends_early_says_why(bundle: Path) -> None:
    monitor = begin(bundle, "dies")
    bundle.mkdir()
    with pytest.raises(Internal, match="no room"):
        monitor.go()
    monitor.close()


def test_one_that_says_nothing(bundle: Path) -> None:
    monitor = begin(bundle, "dumb")
    bundle.mkdir()
    with pytest.raises(Internal, match="ended early"):
        monitor.go()
    monitor.close()


def test_no_conmon(bundle: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Internal, match="cannot run conmon"):
        Monitor(["/none"], bundle, {})
    assert len(os.listdir("/proc/self/fd")) == before
