"""The terminal we are run on: raw mode, size, and getting it back as it was."""

from __future__ import annotations

import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


class RawMode:
    """Puts a terminal into raw mode, and back on every way out; does nothing to what is no terminal."""

    __slots__ = ("_descriptor", "_how", "_saved")

    def __init__(self, descriptor: int, how: Callable[[list[Any]], list[Any]] | None = None) -> None:
        """:param how: changes the terminal's attributes; None: :func:`raw`."""
        self._descriptor, self._how = descriptor, how or raw
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawMode:
        try:
            self._saved = termios.tcgetattr(self._descriptor)
        except termios.error:
            return self
        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._how(self._saved))
        return self

    def restore(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._saved)
            self._saved = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def key_by_key(attributes: list[Any]) -> list[Any]:
    """Attributes of a terminal that hands on each key at once, and does not show it; Ctrl-C interrupts."""
    changed = list(attributes)
    changed[LFLAG] &= ~(termios.ECHO | termios.ICANON)
    return changed


def raw(attributes: list[Any]) -> list[Any]:
    """Attributes of a raw terminal (termios(3), cfmakeraw)."""
    changed = list(attributes)
    changed[IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    changed[OFLAG] &= ~termios.OPOST
    changed[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    changed[CFLAG] = (changed[CFLAG] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    changed[CC] = list(changed[CC])
    changed[CC][termios.VMIN], changed[CC][termios.VTIME] = 1, 0
    return changed


def size(descriptor: int = 1) -> tuple[int, int]:
    """(height, width) in characters; zeros for what is no terminal."""
    try:
        found = os.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return found.lines, found.columns
