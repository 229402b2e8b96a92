"""Progress streams (``/images/create``, ``/images/load`` …) on a terminal, in a log, or not at all.

A message is ``{"status", "id", "progressDetail": {"current", "total"}}``, ``{"stream"}``, ``{"aux"}``, or the
end of it all: ``{"error", "errorDetail"}``. On a terminal every id keeps a line of its own.
"""

from __future__ import annotations

from wherry.cli.command import safe
from wherry.cli.render import units
from wherry.cli.shared import on_terminal
from wherry.client.files import write_all
from wherry.errors import Internal, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BAR_WIDTH = 50


def show(messages: Iterable[Any], *, quiet: bool = False, descriptor: int = 1) -> list[Any]:
    """Show a stream to its end; returns its ``aux`` values.

    :raises InvalidArgument: the stream ended with an error, or is no progress stream.
    """
    screen = Screen(descriptor, on_terminal(descriptor))
    aux: list[Any] = []
    try:
        for message in messages:
            if not isinstance(message, dict):
                raise Internal("cannot read the daemon's answer: not a progress message")
            if message.get("error") or message.get("errorDetail"):
                raise InvalidArgument(_error_text(message))
            if message.get("aux") is not None:
                aux.append(message["aux"])
            elif not quiet:
                screen.put(message)
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
        identifier, status = safe(str(message.get("id") or "")), safe(str(message.get("status") or ""))
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
