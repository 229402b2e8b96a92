"""The daemon's side of the fork server: a clean Python process that jobs are forked from.

A new interpreter takes 40 ms until it has imported what a confined child needs; a fork of one that has
imported it already takes one or two. The server (:mod:`wherry.linux.forkserver_main`) reads nothing except
the requests of this process, and each job is a fresh fork of it, so nothing of one job reaches the next.

    daemon                                       server
    request: number, module, arguments,   ->     fork
             descriptors
                                          <-     S number pid, and a pidfd
                                          <-     E number status

A thread of this process owns the server: it starts it, hears what becomes of the jobs, and ends it after
``quiet`` seconds without a job. Server and jobs end with that thread, so also with a daemon that is killed.
While there is no server that is ready, :meth:`ForkServer.start` returns ``None``, and the caller starts a
process of its own (:mod:`wherry.linux.pychild`).
"""

from __future__ import annotations

import array
import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from wherry.linux.process import environment

log = logging.getLogger(__name__)

READY, STARTED, ENDED = b"R", b"S", b"E"
_BOOT = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); "
    "from wherry.linux.forkserver_main import main; main(sys.argv[1:])"
)
_MESSAGE_MAX = 64 << 10
_QUIET = 60.0
_KILLED = -signal.SIGKILL


class ForkedProcess:
    """A job of the server, with those parts of ``subprocess.Popen`` that its users need."""

    def __init__(self, stdin: IO[bytes] | None, stdout: IO[bytes] | None, stderr: IO[bytes]) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pidfd = -1
        self._doomed = False

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int:
        """Exit status; negative: the signal that ended it."""
        self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it now, or as soon as it has begun; from any thread."""
        with self._lock:
            self._doomed = True
            self._kill()

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # Called by the server's thread.

    def begun(self, pidfd: int) -> None:
        with self._lock:
            self._pidfd = pidfd
            if self._doomed:
                self._kill()

    def finished(self, status: int) -> None:
        with self._lock:
            pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
        self.returncode = status
        self._ended.set()

    def lost(self) -> None:
        """The server has gone. Its jobs die with it; return when this one has."""
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll()
        self.finished(_KILLED)


class ForkServer:
    """Safe to use from any thread.

    :param modules: what jobs run; the server imports them, and each has a function ``main``.
    :param paths: the directories that they are imported from.
    :param quiet: seconds without a job after which the server ends.
    """

    def __init__(
        self, modules: Sequence[str], paths: Callable[[], Sequence[str]], *, quiet: float = _QUIET
    ) -> None:
        self._modules, self._paths, self._quiet = tuple(modules), paths, quiet
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._channel: socket.socket | None = None
        self._ready = False
        self._jobs: dict[int, ForkedProcess] = {}
        self._number = 0
        self._not_before = 0.0
        self._stopping = False

    def start(
        self, module: str, arguments: Sequence[str], fds: Sequence[tuple[int, int]], process: ForkedProcess
    ) -> bool:
        """Run ``module.main(arguments)`` in a fork of the server.

        :param fds: pairs of a descriptor and the number that the job gets it by. It gets no others.
        :return: ``False`` when there is no server that could do it now; one is being started then.
        """
        with self._lock:
            if not self._ready or self._channel is None:
                self._begin()
                return False
            self._number += 1
            number = self._number
            request = json.dumps([number, module, list(arguments), [to for _, to in fds]]).encode()
            if len(request) > _MESSAGE_MAX:
                return False
            rights = array.array("i", [fd for fd, _ in fds])
            self._jobs[number] = process
            try:
                self._channel.sendmsg(
                    [request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT
                )
            except OSError:  # its buffer is full, or it has just gone
                del self._jobs[number]
                return False
            return True

    def stop(self) -> None:
        """End it, with the jobs that it still has; return when it has gone. The next job starts another."""
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self._stopping = True
            if self._channel is not None:
                self._channel.shutdown(socket.SHUT_RDWR)
        thread.join()

    def wait_ready(self, timeout: float) -> bool:
        """Start it and wait until jobs can be given to it. ``False``: that took longer."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                if self._ready:
                    return True
                self._begin()
            time.sleep(0.01)
        return False

    def _begin(self) -> None:
        """Start it if nothing speaks against it. The caller holds the lock."""
        if self._thread is None and time.monotonic() >= self._not_before:
            self._thread = threading.Thread(target=self._run, name="fork-server", daemon=True)
            self._thread.start()

    # ---- the thread that owns the server -----------------------------------------------------------------

    def _run(self) -> None:
        failed = False
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            with ours:
                with theirs:
                    process = self._launch(theirs.fileno())
                try:
                    with self._lock:
                        self._channel = ours
                        if self._stopping:
                            ours.shutdown(socket.SHUT_RDWR)
                    failed = not self._serve(ours, process)
                    if failed:
                        log.warning("the fork server has failed: %s", _last_words(process))
                finally:
                    with self._lock:
                        self._channel, self._ready = None, False
                        left = list(self._jobs.values())
                        self._jobs.clear()
                    process.kill()
                    process.wait()
                    assert process.stderr is not None
                    process.stderr.close()
                    for job in left:
                        job.lost()
        except OSError as e:
            failed = True
            log.warning("the fork server cannot be started: %s", e.strerror or e)
        finally:
            with self._lock:
                self._thread, self._stopping = None, False
                if failed:
                    self._not_before = time.monotonic() + self._quiet

    def _launch(self, channel: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _BOOT, ":".join(self._paths())),
                *(str(channel), str(os.getpid()), ",".join(self._modules)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(channel,),
            env=environment(),
            cwd="/",
        )

    def _serve(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> bool:
        """Hear what the server says, until it has gone or was not needed for a while.

        :return: whether it came up at all.
        """
        came = False
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while True:
            if not poll.poll(self._quiet * 1000):
                with self._lock:
                    if not self._jobs:
                        self._ready = False
                        return came
                continue
            message, rights, _, _ = socket.recv_fds(channel, _MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            kind, *numbers = message.split(b" ")
            if kind == READY:
                came = True
                assert process.stderr is not None
                process.stderr.close()  # it has done what may fail
                with self._lock:
                    self._ready = True
            elif kind == STARTED:
                if rights:  # else the daemon has no descriptor left: it ends, but cannot be ended
                    self._jobs[int(numbers[0])].begun(rights[0])
            elif kind == ENDED:
                with self._lock:
                    job = self._jobs.pop(int(numbers[0]))
                job.finished(int(numbers[1]))
            else:
                return came or self._stopping


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """Why it ended before it was ready: it has closed its channel, and says nothing more."""
    assert process.stderr is not None
    return process.stderr.read(_MESSAGE_MAX).decode(errors="replace")[-1000:].strip()
