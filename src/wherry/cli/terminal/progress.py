"""Progress streams (``/images/create``, ``/images/load`` …) on a terminal, in a log, or not at all.

A message is ``{"status", "id", "progressDetail": {"current", "total"}}``, ``{"stream"}``, ``{"aux"}``, or the
end of it all: ``{"error", "errorDetail"}``. On a terminal every id keeps a line of its own.

What says nothing while it lasts has :class:`Working`: one line with what is done, the bytes and the seconds.
"""

from __future__ import annotations

from wherry.cli.console import can_draw, one_line, safe
from wherry.cli.render import units
from wherry.client.files import write_all
from wherry.errors import Internal, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

BAR_WIDTH = 50
QUICK = 0.5
"""Seconds that nothing is shown for: what is over by then needs no words."""
EVERY = 0.1
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Working:
    """A line on the terminal while something takes its time; nothing without a terminal, or when ``quiet``.

        with Working("Saving", total=0) as working:
            write(path, working.over(pieces))

    The line is on stderr, drawn by a thread, and gone at the end, whatever that was. ``total`` is in bytes;
    0 for what is not known. Others may write between :meth:`clear` and :meth:`resume`.
    """

    def __init__(self, text: str, *, total: int = 0, quiet: bool = False) -> None:
        self._text, self._total = one_line(text), total
        self._count = 0
        self._live = not quiet and can_draw(2)
        self._drawn = False
        if self._live:
            from threading import Event, Lock, Thread

            self._lock, self._over = Lock(), Event()
            self._thread = Thread(target=self._draw_on, daemon=True)

    def __enter__(self) -> Working:
        if self._live:
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._live:
            self._over.set()
            self._thread.join()
            self.clear()
            self.resume()

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, counted."""
        for piece in pieces:
            self._count += len(piece)
            yield piece

    def clear(self) -> None:
        """Take the line away, and draw none until :meth:`resume`."""
        if self._live:
            self._lock.acquire()
            if self._drawn:
                self._put("\r\x1b[K")
                self._drawn = False

    def resume(self) -> None:
        if self._live:
            self._lock.release()

    def _put(self, text: str) -> None:
        try:
            write_all(2, text.encode())
        except OSError:
            self._over.set()  # the terminal went away; the work goes on

    def _draw_on(self) -> None:
        import time

        begun = time.monotonic()
        turn = 0
        pause = QUICK
        while not self._over.wait(pause):
            pause, turn = EVERY, turn + 1
            line = self.line(time.monotonic() - begun, SPINNER[turn % len(SPINNER)])
            with self._lock:
                self._put(f"\r\x1b[K{line}")
                self._drawn = True

    def line(self, seconds: float, mark: str) -> str:
        """``⠙ Saving 12.3MB/45MB 7s``"""
        parts = [mark, self._text]
        if self._count:
            parts.append(
                units.size(self._count, 4) + (f"/{units.size(self._total, 4)}" if self._total else "")
            )
        minutes, rest = divmod(int(seconds), 60)
        return " ".join([*parts, f"{minutes}m{rest:02}s" if minutes else f"{rest}s"])


def show(
    messages: Iterable[Any], *, quiet: bool = False, descriptor: int = 1, waiting: str = ""
) -> list[Any]:
    """Show a stream to its end; returns its ``aux`` values. ``waiting`` stands there between messages.

    :raises InvalidArgument: the stream ended with an error, or is no progress stream.
    """
    screen = Screen(descriptor, can_draw(descriptor))
    aux: list[Any] = []
    try:
        with Working(waiting, quiet=quiet or not waiting) as working:
            for message in messages:
                if not isinstance(message, dict):
                    raise Internal("cannot read the daemon's answer: not a progress message")
                if message.get("error") or message.get("errorDetail"):
                    raise InvalidArgument(_error_text(message))
                if message.get("aux") is not None:
                    aux.append(message["aux"])
                elif not quiet:
                    working.clear()
                    try:
                        screen.put(message)
                    finally:
                        working.resume()
    except ValueError as e:
        raise Internal(f"cannot read the daemon's answer: {e}") from e
    return aux


def _error_text(message: dict[str, Any]) -> str:
    detail = message.get("errorDetail")
    text = detail.get("message") if isinstance(detail, dict) else ""
    return str(text or message.get("error") or "unknown error")


class Screen:
    """Draws messages; lines of ids are drawn over in place when the descriptor is a terminal."""

    def __init__(self, descriptor: int, terminal: bool) -> None:
        self._descriptor, self._terminal = descriptor, terminal
        self._lines: dict[str, int] = {}

    def put(self, message: dict[str, Any]) -> None:
        if message.get("stream"):
            self._write(safe(str(message["stream"])))
            return
        identifier, status = (
            one_line(str(message.get("id") or "")),
            one_line(str(message.get("status") or "")),
        )
        bar = progress_text(message.get("progressDetail") or {})
        text = f"{identifier}: {status}" if identifier else status
        if not self._terminal:
            if not bar:
                self._write(text + "\n")
            return
        if bar:
            text += " " + bar
        if not identifier:
            self._lines.clear()
            self._write(text + "\n")
            return
        self._draw(identifier, text)

    def _draw(self, identifier: str, text: str) -> None:
        if identifier not in self._lines:
            self._lines[identifier] = len(self._lines)
            self._write(text + "\n")
            return
        up = len(self._lines) - self._lines[identifier]
        self._write(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")

    def _write(self, text: str) -> None:
        write_all(self._descriptor, text.encode("utf-8", "backslashreplace"))


def progress_text(detail: dict[str, Any]) -> str:
    """``[====>   ]  12.3MB/45MB``; empty for a message without numbers."""
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not isinstance(current, (int, float)) or not isinstance(total, (int, float)):
        return ""
    if current <= 0 and total <= 0:
        return ""
    if detail.get("units"):
        return f"{current}/{total} {detail['units']}" if total else f"{current} {detail['units']}"
    if total <= 0 or current > total:
        return f"{units.size(current, 4):>8}"
    filled = int(current * BAR_WIDTH / total)
    bar = "=" * filled + (">" if filled < BAR_WIDTH else "")
    return f"[{bar:<{BAR_WIDTH}}] {units.size(current, 4):>8}/{units.size(total, 4)}"
