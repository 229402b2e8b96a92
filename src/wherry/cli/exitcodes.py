"""The exit codes that a shell expects of a container's command that could not be started."""

from __future__ import annotations

from wherry.cli.command import Failure
from wherry.cli.console import indented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.errors import WherryError

CANNOT_RUN, NOT_FOUND, ENGINE_ERROR = 126, 127, 125


def start_failure(error: WherryError, path: str) -> Failure:
    """The exit code that a shell expects when a container's command is missing (127) or cannot run (126)."""
    text = error.message
    code = ENGINE_ERROR
    if any(
        word in text
        for word in ("executable file not found", "no such file or directory", "system cannot find")
    ):
        code = NOT_FOUND
    elif any(word in text for word in ("permission denied", "not a directory", "is a directory")):
        code = CANNOT_RUN
    return Failure(f"wherry: {indented(text)}\n\nRun '{path} --help' for more information", code)
