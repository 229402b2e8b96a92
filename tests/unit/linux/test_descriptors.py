"""What is left of descriptors, and that nothing begins on the last of them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

import pytest

from wherry.errors import Unavailable
from wherry.linux import descriptors


@pytest.fixture
def few() -> Iterator[int]:
    """A limit of a hundred more than are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_ = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_ + 100, hard))
    yield open_ + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_some_are_kept_for_cleaning_up(few: int) -> None:
    held: list[int] = []
    try:
        descriptors.require("start")
        assert descriptors.limit() == few
        before = descriptors.left()
        while descriptors.left() >= few // 8:
            held.append(os.dup(0))
        assert descriptors.left() < before
        with pytest.raises(Unavailable, match=f"cannot start: too many open files: of {few} descriptors"):
            descriptors.require("start")
        while descriptors.left():
            held.append(os.dup(0))
        with pytest.raises(Unavailable):
            descriptors.require("start")
    finally:
        for fd in held:
            os.close(fd)
    descriptors.require("start")


def test_a_descriptor_beyond_what_select_can_name() -> None:
    read_end, write_end = os.pipe()
    high = 1500
    os.dup2(read_end, high)
    try:
        began = time.monotonic()
        assert not descriptors.readable(high, 0.02)
        assert time.monotonic() - began >= 0.02
        os.write(write_end, b"x")
        assert descriptors.readable(high, 5)
    finally:
        for fd in (read_end, write_end, high):
            os.close(fd)
