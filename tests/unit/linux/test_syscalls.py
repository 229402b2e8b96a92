"""What the kernel answers on a busy host."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.linux import syscalls


class Busy:
    """The C library on a host where something is renamed during each of the first calls of openat2(2)."""

    def __init__(self, renames: int) -> None:
        self.left = renames
        self._real = ctypes.CDLL(None, use_errno=True)

    def syscall(self, number: int, *arguments: object) -> int:
        if number == syscalls.SYS_OPENAT2 and self.left > 0:
            self.left -= 1
            ctypes.set_errno(errno.EAGAIN)
            return -1
        result: int = self._real.syscall(number, *arguments)
        return result


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "proc").mkdir()
    (tmp_path / "to-proc").symlink_to("../../proc")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_openat2_asks_again(root: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A rename anywhere makes the kernel give up "..", which must not be taken for a missing path."""
    monkeypatch.setattr(syscalls, "_libc", Busy(renames=20))
    fd = syscalls.openat2(root, "to-proc", os.O_PATH)
    try:
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "proc")
    finally:
        os.close(fd)


def test_openat2_gives_up_in_the_end(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_libc", Busy(renames=10**9))
    with pytest.raises(BlockingIOError):
        syscalls.openat2(root, "to-proc", os.O_PATH)
