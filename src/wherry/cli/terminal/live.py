"""A view on a terminal that is drawn again whenever there is news, and listens to keys."""

from __future__ import annotations

import os
import select
import sys
import termios

from wherry.cli.terminal import device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class KeyPresses:
    """The terminal's keys one by one, unechoed, while it is open; Ctrl-C stays an interrupt."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list[Any] | None = None

    def __enter__(self) -> KeyPresses:
        try:
            self._saved = termios.tcgetattr(self._descriptor)
        except termios.error:
            return self
        changed = list(self._saved)
        changed[device.LFLAG] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self._descriptor, termios.TCSANOW, changed)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._saved is not None:
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._saved)

    @property
    def are_there(self) -> bool:
        return self._saved is not None


def run(news: Iterable[Any], draw: Callable[[Any], Iterable[str]], on_key: Callable[[str], bool]) -> None:
    """Draw every piece of ``news`` until it ends or ``on_key`` says so (False: that was the last key).

    Lines are cut to the terminal. After a key the last piece is drawn again. The cursor and the terminal are
    given back on every way out.
    """
    from threading import Thread

    held: list[Any] = []
    failed: list[BaseException] = []
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def follow() -> None:
        try:
            for piece in news:
                held[:] = [piece]
                os.write(write_end, b"n")
        except BaseException as e:
            failed.append(e)
        try:
            os.write(write_end, b"e")
        except OSError:
            pass

    Thread(target=follow, daemon=True).start()
    with KeyPresses(0) as keys:
        sys.stdout.write(HIDE + HOME + CLEAR_REST)
        try:
            _loop(read_end, held, draw, on_key, with_keys=keys.are_there)
        finally:
            sys.stdout.write(SHOW + "\r\n")
            sys.stdout.flush()
    if failed:
        raise failed[0]


def _loop(
    read_end: int,
    held: list[Any],
    draw: Callable[[Any], Iterable[str]],
    on_key: Callable[[str], bool],
    *,
    with_keys: bool,
) -> None:
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    if with_keys:
        poll.register(0, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _event in poll.poll()]
        if 0 in ready:
            typed = os.read(0, 64).decode(errors="replace")
            if not typed or not all(on_key(key) for key in typed):
                return
        said = os.read(read_end, 4096) if read_end in ready else b""
        if held:
            _show(draw(held[0]))
        if b"e" in said:
            return


def _show(lines: Iterable[str]) -> None:
    height, width = device.size()
    height, width = height or 24, width or 80
    shown = [line[:width] + CLEAR_LINE for line in lines][: height - 1]
    sys.stdout.write(HOME + "\r\n".join(shown) + "\r\n" + CLEAR_REST)
    sys.stdout.flush()
