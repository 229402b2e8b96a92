"""The one wrapper that runs programs: argv list, empty stdin, explicit environment, bounded time."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wherry.errors import WherryError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TERM_GRACE = 2.0
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


@dataclass(frozen=True)
class Result:
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
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if not poll.poll(max(0.0, timeout) * 1000):
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
) -> Result:
    """Run a program to its end and return its output.

    On timeout or any exception the program's process group gets TERM, then KILL after 2 s, and is reaped.

    :param timeout: seconds.
    :raises CommandFailed: non-zero exit (when ``check``), timeout, or the program is not there.
    """
    try:
        process = _Process(
            list(argv),
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
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as e:
        _end(process)
        raise CommandFailed(argv, process.returncode, "", f"timed out after {timeout:g} s") from e
    except BaseException:
        _end(process)
        raise
    if check and process.returncode != 0:
        raise CommandFailed(argv, process.returncode, err[-_STDERR_KEEP:].decode(errors="replace"))
    return Result(out, err)


def launch(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> None:
    """Run a program that goes into the background by itself; return when its first process has ended.

    Its standard error is read only as far as it has come: what stays behind may hold it open.

    :param timeout: seconds.
    :raises CommandFailed: non-zero exit, timeout, or the program is not there.
    """
    try:
        process = _Process(
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
    assert process.stderr is not None
    with process.stderr as stderr:
        try:
            code = process.wait(timeout)
        except BaseException as e:
            process.kill()
            process.wait()
            if isinstance(e, subprocess.TimeoutExpired):
                raise CommandFailed(argv, process.returncode, "", f"timed out after {timeout:g} s") from e
            raise
        if code != 0:
            os.set_blocking(stderr.fileno(), False)
            raise CommandFailed(argv, code, (stderr.read() or b"")[-_STDERR_KEEP:].decode(errors="replace"))


class Child:
    """A program beside this one: ``pidfd`` becomes readable at its end, ``output`` is what it writes.

    Both descriptors do not block. Whoever holds it calls :meth:`close` when it has ended, or to end it.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """:raises CommandFailed: the program is not there."""
        try:
            self._process = subprocess.Popen(
                list(argv),
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


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.communicate(timeout=_TERM_GRACE)
            return
        except subprocess.TimeoutExpired:
            continue
    process.wait()
