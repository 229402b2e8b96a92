"""Signals as events of a poll loop: a handler writes to a pipe, the loop reads it."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType, TracebackType
    from typing import Any

NOT_PROXIED = frozenset(
    (
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGTSTP,
        signal.SIGCONT,
    )
)
"""Signals that mean us, not the container: what cannot be caught, job control, and our own faults."""


SIGINT, SIGTERM, SIGWINCH = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGWINCH)


class SignalPipe:
    """Catches signals while it is open; :meth:`read` says which came. Handlers are put back at the end."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = list(numbers)
        self._saved: dict[int, Any] = {}
        self._read, self._write = -1, -1

    def __enter__(self) -> SignalPipe:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in self._numbers:
            self._saved[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, frame: FrameType | None) -> None:
        try:
            os.write(self._write, bytes((number,)))
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        return self._read

    def read(self) -> list[int]:
        """The signals that came since the last time, oldest first."""
        try:
            return list(os.read(self._read, 4096))
        except BlockingIOError:
            return []


def proxied() -> list[int]:
    """The signals that are passed on to a container."""
    return sorted(
        int(number) for number in signal.valid_signals() - NOT_PROXIED if int(number) < signal.SIGRTMIN
    )


def name(number: int) -> str:
    return signal.Signals(number).name.removeprefix("SIG")
