"""The receiver of progress; the client implements the display."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str, str, str], None]
    """``say("Container web-1", "Creating", detail)``"""


class ProjectReporter:
    """Passes on progress events, and warnings for the user."""

    def __init__(self, say: Say, warn: Callable[[str], None], confirm: Callable[[str], bool]) -> None:
        self._say, self.warn, self.confirm = say, warn, confirm

    def say(self, what: str, status: str, detail: str = "") -> None:
        self._say(what, status, detail)

    def container(self, name: str, status: str, detail: str = "") -> None:
        self._say(f"Container {name}", status, detail)

    def network(self, name: str, status: str, detail: str = "") -> None:
        self._say(f"Network {name}", status, detail)

    def volume(self, name: str, status: str, detail: str = "") -> None:
        self._say(f"Volume {name}", status, detail)
