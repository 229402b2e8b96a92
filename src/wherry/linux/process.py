"""The one wrapper that runs programs: argv list, empty stdin, explicit environment, bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from wherry.errors import WherryError
from wherry.linux.descriptors import readable, with_inherited

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TERM_GRACE = 2.0
_STOP_GRACE = 10.0
_STDERR_KEEP = 4096


class CommandFailed(WherryError):
    """A program exited non-zero, was killed, took too long, or could not be started.

    :ivar argv: what was run. :ivar exit_code: as in ``subprocess`` (negative: signal), 127 if it could not
        be started. :ivar stderr: the end of its standard error.
    """

    def __init__(self, argv: Sequence[str], exit_code: int, stderr: str, reason: str = "") -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stderr = stderr
        what = reason or f"exit status {exit_code}"
        super().__init__(f"{argv[0]}: {what}" + (f": {stderr.strip()}" if stderr.strip() else ""))


class Stop:
    """Ends the program that :func:`run` runs for it, and every later one. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = False

    def hold(self, process: subprocess.Popen[bytes] | None) -> None:
        with self._lock:
            self._process = process
            if process is not None and self.ended:
                _signal(process, signal.SIGTERM)

    def end(self) -> None:
        """TERM to the process group, so that it can clean up; KILL if that takes too long."""
        with self._lock:
            self.ended = True
            if self._process is None:
                return
            _signal(self._process, signal.SIGTERM)
            later = threading.Timer(_STOP_GRACE, self._kill, (self._process,))
            later.daemon = True
            later.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process:  # else its number may be another process's
                _signal(process, signal.SIGKILL)


STOP: ContextVar[Stop | None] = ContextVar("stop", default=None)
"""The :class:`Stop` for programs that are run in this context."""


@dataclass(frozen=True)
class ProcessResult:
    stdout: bytes
    stderr: bytes


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program run: a fixed PATH and locale, nothing inherited."""
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **(extra or {})}


class _Process(subprocess.Popen[bytes]):
    """A child whose end wakes its parent: ``Popen.wait`` with a timeout polls, up to 50 ms late."""

    def wait(self, timeout: float | None = None) -> int:
        if timeout is not None and self.returncode is None:
            try:
                fd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return super().wait()
            try:
                if not readable(fd, timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout)
            finally:
                os.close(fd)
        return super().wait()


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    check: bool = True,
    raised: bool = False,
    executable: str | None = None,
) -> ProcessResult:
    """Run a program to its end and return its output.

    On timeout or any exception the program's process group gets TERM, then KILL after 2 s, and is reaped.
    :data:`STOP` ends it from elsewhere.

    :param timeout: seconds.
    :param raised: the program may have as many descriptors as the daemon.
    :param executable: what is executed under the name ``argv[0]``; for a program that is ``raised``.
    :raises CommandFailed: non-zero exit (when ``check``), timeout, or the program is not there.
    """
    try:
        process = _Process(
            list(argv) if raised else with_inherited(argv),
            executable=executable if raised else None,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            cwd=cwd or "/",
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as e:
        raise CommandFailed(argv, 127, e.strerror or str(e), "cannot be started") from e
    stop = STOP.get()
    try:
        if stop is not None:
            stop.hold(process)
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as e:
        _end(process)
        raise CommandFailed(argv, process.returncode, "", f"timed out after {timeout:g} s") from e
    except BaseException:
        _end(process)
        raise
    finally:
        if stop is not None:
            stop.hold(None)
    if stop is not None and stop.ended:
        raise CommandFailed(argv, process.returncode, "", "it was broken off")
    if check and process.returncode != 0:
        raise CommandFailed(argv, process.returncode, err[-_STDERR_KEEP:].decode(errors="replace"))
    return ProcessResult(out, err)


class Launch:
    """A program that daemonizes itself: it is started, and :meth:`wait` returns when its first process has
    ended.

    Its standard error is read only as far as it is available: the background process may keep it open.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        """:raises CommandFailed: the program is not there."""
        self._argv = argv
        try:
            self._process = _Process(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(env),
                cwd="/",
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        except OSError as e:
            raise CommandFailed(argv, 127, e.strerror or str(e), "cannot be started") from e

    def wait(self, timeout: float) -> None:
        """:param timeout: seconds. :raises CommandFailed: non-zero exit, or timeout, after which it is
        killed.
        """
        process = self._process
        assert process.stderr is not None
        with process.stderr as stderr:
            try:
                code = process.wait(timeout)
            except BaseException as e:
                self._end()
                if isinstance(e, subprocess.TimeoutExpired):
                    reason = f"timed out after {timeout:g} s"
                    raise CommandFailed(self._argv, process.returncode, "", reason) from e
                raise
            if code != 0:
                os.set_blocking(stderr.fileno(), False)
                text = (stderr.read() or b"")[-_STDERR_KEEP:].decode(errors="replace")
                raise CommandFailed(self._argv, code, text)

    def kill(self) -> None:
        """End it, if its first process was not waited for."""
        if self._process.returncode is None:
            self._end()
            if self._process.stderr is not None:
                self._process.stderr.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


class Child:
    """A program beside this one: ``pidfd`` becomes readable at its end, ``output`` is what it writes.

    Both descriptors do not block. Whoever holds it calls :meth:`close` when it has ended, or to end it.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, executable: str | None = None
    ) -> None:
        """:param executable: what is executed under the name ``argv[0]``.
        :raises CommandFailed: the program is not there.
        """
        try:
            self._process = subprocess.Popen(
                list(argv),
                executable=executable,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except OSError as e:
            raise CommandFailed(argv, 127, e.strerror or str(e), "cannot be started") from e
        assert self._process.stdout is not None
        self._stdout = self._process.stdout
        self.pid = self._process.pid
        self.output = self._stdout.fileno()
        try:
            os.set_blocking(self.output, False)
            self.pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self._stdout.close()
            self._process.kill()
            self._process.wait()
            raise

    def read(self) -> bytes:
        """What it wrote since the last call, up to 64 KiB; empty when that is nothing."""
        try:
            return os.read(self.output, 1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> int:
        """Kill it if it runs, reap it, give the descriptors back; return how it ended, as ``subprocess``."""
        if self.pidfd >= 0:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._stdout.close()
            os.close(self.pidfd)
            self.pidfd = self.output = -1
        code = self._process.returncode
        assert code is not None
        return code


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(process, number)
        try:
            process.communicate(timeout=_TERM_GRACE)
            return
        except subprocess.TimeoutExpired:
            continue
    process.wait()
