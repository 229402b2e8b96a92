"""The error of a build's command; apart, as faces know it that do not build."""

from __future__ import annotations

from wherry.errors import InvalidArgument


class RunFailed(InvalidArgument):
    """The command exited with a status other than 0. ``tail`` is the end of its output."""

    def __init__(self, command: str, exit_code: int, tail: str) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {exit_code}")
        self.command, self.exit_code, self.tail = command, exit_code, tail
