"""What is said about one thing of the host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """``PROBLEM``: the daemon does not start, or containers do not. ``WARNING``: something does not work, or
    will stop to. ``NOTE``: good to know."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """``what`` is the case; ``follows``: what that means; ``do``: how to change it."""

    level: Level
    about: str
    what: str
    follows: str = ""
    do: str = ""

    @property
    def line(self) -> str:
        """One line, for the warnings of ``info``."""
        text = f"{self.about}: {self.what}"
        return f"{text}: {self.follows}" if self.follows else text
