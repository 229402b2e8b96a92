"""Forks that do parts of a child's work."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence

import pytest

from wherry.storage.confined.child.helpers import Helpers


def nothing(_numbers: Sequence[int]) -> None:
    """For work that brings nothing back."""


def test_what_they_bring_back_arrives() -> None:
    helpers, found = Helpers(2), list[int]()
    assert helpers.give(lambda: [3, 1, 70_000], found.extend)
    assert helpers.give(list, found.extend)
    helpers.wait()
    assert found == [3, 1, 70_000]


def test_no_more_run_than_may() -> None:
    helpers = Helpers(1)
    reading, writing = os.pipe()

    def wait() -> Sequence[int]:
        os.close(writing)
        os.read(reading, 1)
        return []

    assert helpers.give(wait, nothing)
    assert not helpers.give(list, nothing)
    os.close(writing)
    helpers.wait()
    assert helpers.give(list, nothing)
    helpers.wait()
    os.close(reading)
    assert not Helpers(0).give(list, nothing)


def test_an_error_of_one_is_raised_and_all_are_reaped() -> None:
    helpers = Helpers(2)

    def fail() -> Sequence[int]:
        raise OSError(errno.ENOSPC, "no space")

    assert helpers.give(fail, nothing)
    with pytest.raises(OSError, match="no space") as caught:
        helpers.wait()
    assert caught.value.errno == errno.ENOSPC
    helpers.abandon()


def test_one_that_is_killed_is_an_error() -> None:
    helpers = Helpers(1)

    def end() -> Sequence[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    assert helpers.give(end, nothing)
    with pytest.raises(OSError, match="ended early"):
        helpers.wait()


def test_those_that_are_abandoned_are_waited_for() -> None:
    helpers = Helpers(2)
    assert helpers.give(lambda: [1], nothing)
    (pid,) = helpers._running
    helpers.abandon()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
