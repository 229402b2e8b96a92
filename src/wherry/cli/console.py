"""Output to the terminal: safe text, detection of a terminal, and questions to the user."""

from __future__ import annotations

import os
import sys

from wherry.model.text import indented, one_line, safe

__all__ = ["confirm", "indented", "on_terminal", "one_line", "safe"]


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but ``y`` or ``yes`` is no."""
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()
    return answer.strip().lower() in ("y", "yes")


def on_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def can_draw(descriptor: int) -> bool:
    """Whether lines can be redrawn on this descriptor: it is a terminal that supports it."""
    return on_terminal(descriptor) and os.environ.get("TERM") != "dumb"


def may_colour(descriptor: int) -> bool:
    """Whether colours are supported on this descriptor, and wanted (no-color.org)."""
    return can_draw(descriptor) and not os.environ.get("NO_COLOR")


def open_standard() -> None:
    """Make sure that descriptors 0 to 2 are open, on /dev/null if they were closed at the start: otherwise a
    file that is opened later could become standard output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            made = os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
            if made != descriptor:
                os.dup2(made, descriptor)
                os.close(made)
            os.set_inheritable(descriptor, True)
    # The interpreter makes no stream objects for descriptors that were closed at its start.
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
