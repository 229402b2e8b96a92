"""The daemon of this machine: starting it in the background, finding it again, stopping it.

    <run>/wherryd.pid   its process id         <run>/wherryd.log   what it wrote
    <run>/wherry.sock   where it listens, unless told otherwise

A process id is believed only when the process it names is wherryd, and is held by a pidfd from then on, so
that a signal never reaches a stranger who was given the same number.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from wherry.client.files import read_file, write_all
from wherry.client.transport import DEFAULT_HOST, CannotConnect, Endpoint
from wherry.errors import Internal, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = "/run/wherry"
READY_TIMEOUT = 20.0
"""Seconds a daemon may take until it answers; it may have containers to adopt."""
STOP_TIMEOUT = 30.0
RETRY = 0.02
LOG_TAIL_LINES = 20


def executable() -> str:
    """``wherryd``, from beside this program, then beside the interpreter, then from PATH.

    :raises NotFound: it is in none of them.
    """
    places = [os.path.dirname(os.path.realpath(sys.argv[0])), os.path.dirname(sys.executable)]
    places += os.environ.get("PATH", "").split(":")
    for place in places:
        path = os.path.join(place, "wherryd")
        if place and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotFound("cannot start the daemon: wherryd is not installed beside wherry or in PATH")


def start_default(endpoint: Endpoint) -> None:
    """Start the default daemon because a command needs it and nobody answers.

    :raises Unavailable: it does not come up; the text ends with what it wrote last.
    """
    run = os.path.dirname(endpoint.address)
    start(run, (), Endpoint(endpoint.host))


def start(run: str, arguments: Sequence[str], endpoint: Endpoint) -> int:
    """Start wherryd in the background and wait until it answers; returns its process id.

    :raises Unavailable: it ended at once or does not answer in time.
    """
    program = executable()
    os.makedirs(run, mode=0o711, exist_ok=True)
    log = f"{run}/wherryd.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        mark = os.fstat(descriptor).st_size
        pid = os.posix_spawn(
            program,
            [program, *arguments],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, descriptor, 1),
                (os.POSIX_SPAWN_DUP2, descriptor, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT],
        )
    except OSError as e:
        raise Unavailable(f"cannot start the daemon: {program}: {e.strerror}") from e
    finally:
        os.close(descriptor)
    _wait_until_ready(pid, endpoint, log, mark)
    _write_pid(f"{run}/wherryd.pid", pid)
    return pid


def _write_pid(path: str, pid: int) -> None:
    partial = f"{path}.{os.getpid()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, f"{pid}\n".encode())
    finally:
        os.close(descriptor)
    os.rename(partial, path)


def _wait_until_ready(pid: int, endpoint: Endpoint, log: str, mark: int) -> None:
    """Wait for the daemon's answer or its end, whichever is first.

    The socket appears without telling anybody, so it is tried; the process's end wakes us at once.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while not answers(endpoint):
            if poll.poll(RETRY * 1000):
                _, status = os.waitpid(pid, 0)
                code = os.waitstatus_to_exitcode(status)
                raise Unavailable(
                    f"cannot start the daemon: wherryd ended with code {code}{_tail(log, mark)}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"cannot start the daemon: wherryd (pid {pid}) does not answer at {endpoint.host} after "
                    f"{READY_TIMEOUT:.0f} s{_tail(log, mark)}"
                )
    finally:
        os.close(pidfd)


def _tail(log: str, mark: int) -> str:
    """The last lines that the daemon wrote since ``mark``, to end a message with."""
    text = read_file(log)[mark:].decode("utf-8", "replace").rstrip()
    if not text:
        return f"; it wrote nothing to {log}"
    return f"; the end of {log}:\n" + "\n".join(text.split("\n")[-LOG_TAIL_LINES:])


def answers(endpoint: Endpoint) -> bool:
    """Whether a daemon answers a ping there."""
    from wherry.client.api import Api

    try:
        with Api(endpoint) as api:
            return bool(api.ping.api_version)
    except (CannotConnect, Internal):
        return False


class Running:
    """A daemon found by its pid file, held by a pidfd."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd

    def close(self) -> None:
        os.close(self.pidfd)

    def stop(self) -> None:
        """Ask it to end and wait until it has; its containers go on.

        :raises Unavailable: it is still there after :data:`STOP_TIMEOUT`.
        """
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(STOP_TIMEOUT * 1000):
            raise Unavailable(
                f"cannot stop the daemon: wherryd (pid {self.pid}) still runs after {STOP_TIMEOUT:.0f} s"
            )


def find(run: str) -> Running | None:
    """The daemon that the pid file in ``run`` names; None when it is not running."""
    try:
        text = read_file(f"{run}/wherryd.pid").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not text.isdigit() or len(text) > 9 or int(text) <= 1:
        return None
    try:
        pidfd = os.pidfd_open(int(text))
    except (ProcessLookupError, OSError):
        return None
    if not _is_wherryd(int(text)):
        os.close(pidfd)
        return None
    return Running(int(text), pidfd)


def _is_wherryd(pid: int) -> bool:
    """Whether the process runs wherryd: the program itself, or a script of that name by an interpreter."""
    try:
        words = read_file(f"/proc/{pid}/cmdline").split(b"\0")[:4]
    except OSError:
        return False
    return any(os.path.basename(word) in (b"wherryd", b"wherry.daemon.main") for word in words)


def default_host(run: str) -> str:
    return DEFAULT_HOST if run == RUN else f"unix://{run}/wherry.sock"
