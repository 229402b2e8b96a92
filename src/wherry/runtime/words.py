"""The OCI runtime's messages, in the words from which Docker's clients and scripts tell the reason."""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE, EXIT_FAILED = 127, 126, 128

_TIMESTAMP = re.compile(r"^\S+Z: ")
_ERRNO = re.compile(r": ([A-Z])(?=[a-z ]*$)")
"""The first letter of the kernel's reason, which ends a message; Go writes it in lower case."""
_CHDIR = re.compile(r"chdir(?: to)? `([^`]*)`")
_MOUNT = re.compile(r"mount `([^`]*)` to `([^`]*)`")
_KINDS_DIFFER = (
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class TaskFailed(InvalidArgument):
    """The runtime could not start the process; ``exit_code`` is what a shell would return."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(message: str, command: str) -> TaskFailed:
    """What the runtime says of a process that it could not start.

    :param command: the first word of the process.
    """
    text = _ERRNO.sub(lambda found: f": {found[1].lower()}", _TIMESTAMP.sub("", message.strip()))
    # The runtime looks for an empty name in the first directory of $PATH and finds that directory.
    if not command or "not found in $PATH" in text or "executable file" in text:
        return TaskFailed(f'exec: "{command}": executable file not found in $PATH', EXIT_NOT_FOUND)
    if "chdir" in text or "cwd" in text:
        return TaskFailed(_workdir(text), _exit_code(text))
    if re.search(r"exec .*no such file", text, re.IGNORECASE):
        return TaskFailed(f'exec: "{command}": no such file or directory', EXIT_NOT_FOUND)
    # The runtime opens the file itself, and a directory then fails with EPERM.
    if "open executable: operation not permitted" in text or "s a directory" in text:
        return TaskFailed(f'exec: "{command}": is a directory: permission denied', EXIT_NOT_EXECUTABLE)
    if "ermission denied" in text:
        return TaskFailed(f'exec: "{command}": permission denied', EXIT_NOT_EXECUTABLE)
    if "xec format error" in text:
        return TaskFailed(f'exec: "{command}": exec format error', EXIT_NOT_EXECUTABLE)
    text = _MOUNT.sub(lambda found: f'error mounting "{found[1]}" to rootfs at "/{found[2]}"', text)
    if text.endswith("not a directory"):
        return TaskFailed(f"{text}: {_KINDS_DIFFER}", EXIT_NOT_EXECUTABLE)
    return TaskFailed(text, _exit_code(text))


def not_created(error: TaskFailed, runtime: str) -> TaskFailed:
    """``error`` with the words before it that Docker has for a container.

    :param runtime: its name, as users know it.
    """
    return TaskFailed(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"{runtime} create failed: unable to start container process: error during container init: "
        f"{error.message}",
        error.exit_code,
    )


def not_executed(error: TaskFailed) -> TaskFailed:
    """``error`` with the words before it that Docker has for an exec."""
    return TaskFailed(
        f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}",
        error.exit_code,
    )


def _workdir(text: str) -> str:
    found = _CHDIR.search(text)
    if found is None:
        return text
    reason = text.rpartition(": ")[2]
    return f'chdir to cwd ("{found[1]}") set in config.json failed: {reason}'


def _exit_code(text: str) -> int:
    return EXIT_NOT_FOUND if "no such file or directory" in text else EXIT_FAILED
