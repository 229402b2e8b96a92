"""The daemon of this machine: start it in the background, find it, stop it.

    <run>/wherryd.pid   its process id         <run>/wherryd.log   what it wrote
    <run>/wherry.sock   where it listens, unless told otherwise

A process id is only used if that process is wherryd; a pidfd then makes sure that a signal never reaches
another process with the same number.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from wherry.client.endpoint import DEFAULT_HOST, CannotConnect, DaemonEndpoint
from wherry.client.files import read_file, write_all
from wherry.errors import Internal, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = "/run/wherry"
READY_TIMEOUT = 20.0
"""Seconds that a daemon may take to answer; it may have to adopt many containers."""
STOP_TIMEOUT = 30.0
RETRY = 0.02
LOG_TAIL_LINES = 20


def executable() -> str:
    """``wherryd``, from beside this program, then beside the interpreter, then from PATH.

    :raises NotFound: it was not found.
    """
    places = [os.path.dirname(os.path.realpath(sys.argv[0])), os.path.dirname(sys.executable)]
    places += os.environ.get("PATH", "").split(":")
    for place in places:
        path = os.path.join(place, "wherryd")
        if place and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotFound("cannot start the daemon: wherryd is not installed beside wherry or in PATH")


def start_default(endpoint: DaemonEndpoint) -> None:
    """Start the default daemon, because a command needs it and it does not answer.

    :raises Unavailable: it does not start; the text ends with its last messages.
    """
    run = os.path.dirname(endpoint.address)
    start(run, (), DaemonEndpoint(endpoint.host))


def start(run: str, arguments: Sequence[str], endpoint: DaemonEndpoint) -> int:
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


def _wait_until_ready(pid: int, endpoint: DaemonEndpoint, log: str, mark: int) -> None:
    """Wait until the daemon answers or ends.

    There is no event for the socket, so it is tried repeatedly; the end of the process is noticed at once.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while True:
            answering = answers(endpoint)
            # Another daemon may have answered, and ours may have ended because of it.
            if poll.poll(0 if answering else RETRY * 1000):
                _, status = os.waitpid(pid, 0)
                code = os.waitstatus_to_exitcode(status)
                raise Unavailable(
                    f"cannot start the daemon: wherryd ended with code {code}{_tail(log, mark)}"
                )
            if answering:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"cannot start the daemon: wherryd (pid {pid}) does not answer at {endpoint.host} after "
                    f"{READY_TIMEOUT:.0f} s{_tail(log, mark)}"
                )
    finally:
        os.close(pidfd)


def _tail(log: str, mark: int) -> str:
    """The last lines that the daemon wrote since ``mark``, for the end of an error message."""
    text = read_file(log)[mark:].decode("utf-8", "replace").rstrip()
    if not text:
        return f"; it wrote nothing to {log}"
    return f"; the end of {log}:\n" + "\n".join(text.split("\n")[-LOG_TAIL_LINES:])


def answers(endpoint: DaemonEndpoint) -> bool:
    """Whether a daemon answers a ping there."""
    return look(endpoint) == ANSWERS


ANSWERS, DENIED, AWAY = "answers", "denied", "away"


def look(endpoint: DaemonEndpoint) -> str:
    """Whether a daemon answers there, exists but refuses us, or does not exist."""
    from wherry.client.api import Api

    try:
        with Api(endpoint) as api:
            return ANSWERS if api.ping.api_version else AWAY
    except CannotConnect as e:
        return DENIED if isinstance(e.__cause__, PermissionError) else AWAY
    except Internal:
        return AWAY


class RunningDaemon:
    """A daemon found by its pid file, held by a pidfd."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd

    def close(self) -> None:
        os.close(self.pidfd)

    def stop(self) -> None:
        """Tell it to stop, and wait for its end; its containers keep running.

        :raises Unavailable: it still runs after :data:`STOP_TIMEOUT`.
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


def find(run: str) -> RunningDaemon | None:
    """The daemon in the pid file in ``run``; None if it does not run."""
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
    return RunningDaemon(int(text), pidfd)


def _is_wherryd(pid: int) -> bool:
    """Whether the process runs wherryd: the program itself, or a script of that name by an interpreter."""
    try:
        words = read_file(f"/proc/{pid}/cmdline").split(b"\0")[:4]
    except OSError:
        return False
    return any(os.path.basename(word) in (b"wherryd", b"wherry.daemon.main") for word in words)


def default_host(run: str) -> str:
    return DEFAULT_HOST if run == RUN else f"unix://{run}/wherry.sock"
