"""The line that stands on a terminal while something takes its time, and nothing of it elsewhere."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator

import pytest

from wherry.cli.terminal import progress
from wherry.cli.terminal.progress import Working


class Terminal:
    """A terminal as our stderr, and what was written on it."""

    def __init__(self) -> None:
        self._primary, secondary = pty.openpty()
        self._saved = os.dup(2)
        os.dup2(secondary, 2)
        os.close(secondary)

    def read_until(self, text: bytes) -> bytes:
        found = b""
        while text not in found:
            found += os.read(self._primary, 4096)
        return found

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        os.close(self._primary)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUICK", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)


def test_bytes_as_they_go() -> None:
    with Terminal() as terminal:
        with Working("Saving", total=4000) as working:
            pieces = working.over([b"x" * 1000, b"y" * 500])
            assert next(pieces) == b"x" * 1000
            terminal.read_until(b"Saving 1kB/4kB 0s")
            assert next(pieces) == b"y" * 500
            terminal.read_until(b"Saving 1.5kB/4kB")
        os.write(2, b"after")
        assert terminal.read_until(b"after").endswith(b"\r\x1b[Kafter")


def test_it_is_gone_after_a_failure_too() -> None:
    with Terminal() as terminal:
        with pytest.raises(ZeroDivisionError), Working("Saving"):
            terminal.read_until(b"Saving 0s")
            raise ZeroDivisionError
        os.write(2, b"after")
        assert terminal.read_until(b"after").endswith(b"\r\x1b[Kafter")


def test_messages_come_between() -> None:
    with Terminal() as terminal:

        def messages() -> Iterator[dict[str, str]]:
            terminal.read_until(b"Making it 0s")
            yield {"status": "half"}

        progress.show(messages(), descriptor=2, waiting="Making it")
        assert b"\r\x1b[Khalf\r\n" in terminal.read_until(b"half\r\n")


def test_nothing_when_quiet_or_without_a_terminal() -> None:
    with Terminal():
        before = threading.active_count()
        with Working("Saving", quiet=True):
            assert threading.active_count() == before
        read, write = os.pipe()
        saved = os.dup(2)
        os.dup2(write, 2)
        try:
            with Working("Saving") as working:
                assert threading.active_count() == before
                assert list(working.over([b"a"])) == [b"a"]
        finally:
            os.dup2(saved, 2)
            for descriptor in (saved, write):
                os.close(descriptor)
        assert os.read(read, 10) == b""
        os.close(read)


def test_lines() -> None:
    working = Working("Saving \x1b[31m", quiet=True)
    assert working.line(3.9, "*") == "* Saving \\x1b[31m 3s"
    assert working.line(125, "*").endswith(" 2m05s")
