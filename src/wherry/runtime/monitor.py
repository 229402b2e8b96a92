"""conmon, from its start until the process that it watches runs.

conmon writes one line of JSON to the pipe in ``_OCI_SYNCPIPE``: the process's pid, or -1 and why there is
none. It waits for a byte from the pipe in ``_OCI_STARTPIPE`` before it does anything with the bundle, and
an exec with ``_OCI_ATTACHPIPE`` for another before it runs the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from wherry.errors import Internal
from wherry.linux import process as programs
from wherry.linux.descriptors import readable
from wherry.model import typed
from wherry.runtime.words import explain

_CREATE_TIMEOUT = 120.0


@dataclass(frozen=True)
class Started:
    """Pids of the process and of the conmon that watches it."""

    pid: int
    conmon_pid: int


class SyncMessage(msgspec.Struct):
    """``data``: the pid, or -1."""

    data: int
    message: str = ""


class Monitor:
    """The conmon of a container, which waits. :meth:`go` lets it create the container; :meth:`close` in any
    case.

    If the daemon is killed meanwhile, conmon goes on. As long as the bundle is not complete, the runtime
    refuses it and conmon ends; after that the container is one that was created and not started, which the
    next daemon removes.
    """

    def __init__(self, argv: list[str], bundle: Path, env: Mapping[str, str]) -> None:
        """:raises Internal: conmon cannot be run."""
        self._bundle = bundle
        self._sync, sync_w = os.pipe2(os.O_CLOEXEC)
        start_r, self._start = os.pipe2(os.O_CLOEXEC)
        variables = {"_OCI_SYNCPIPE": str(sync_w), "_OCI_STARTPIPE": str(start_r)}
        try:
            self._launch = _launched(argv, {**env, **variables}, (sync_w, start_r))
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(sync_w)
            os.close(start_r)

    def go(self) -> SyncMessage:
        """Let it go on, and return what it says.

        :raises Internal: it cannot be run, died without a word, or took too long.
        """
        (self._bundle / "exits").mkdir(exist_ok=True)
        try:
            with suppress(BrokenPipeError):  # it has ended already: its exit status says more
                os.write(self._start, b"\0")
            try:
                self._launch.wait(_CREATE_TIMEOUT)
            except programs.CommandFailed as e:
                raise Internal(f"cannot run conmon: {e.message}") from e
            return _read_sync(self._sync)
        finally:
            self._close_pipes()

    def close(self) -> None:
        """End it if it still waits; once it went on, nothing happens."""
        self._launch.kill()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for fd in (self._sync, self._start):
            if fd >= 0:
                os.close(fd)
        self._sync = self._start = -1


class PendingExec:
    """An exec in two steps, so that its output is attached before it can print.

    ``prepare`` starts conmon and returns when its attach socket is there; ``go`` runs the process.
    """

    def __init__(self, argv: list[str], directory: Path, env: Mapping[str, str]) -> None:
        self._argv = argv
        self._env = env
        self.directory = directory
        self._sync = -1
        self._start = -1

    def prepare(self) -> None:
        (self.directory / "exits").mkdir(exist_ok=True)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (self._sync, sync_w), (attach_r, attach_w), (start_r, self._start) = pipes
        try:
            # conmon waits for one byte before it forks, and for another before it runs the process.
            os.write(self._start, b"\0")
            env = {"_OCI_SYNCPIPE": sync_w, "_OCI_ATTACHPIPE": attach_w, "_OCI_STARTPIPE": start_r}
            try:
                _spawn(
                    self._argv,
                    {**self._env, **{k: str(v) for k, v in env.items()}},
                    (sync_w, attach_w, start_r),
                )
            finally:
                for fd in (sync_w, attach_w, start_r):
                    os.close(fd)
            _read_sync(attach_r)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(attach_r)

    def go(self, command: str) -> Started:
        """:raises TaskFailed: the process could not be executed."""
        try:
            os.write(self._start, b"\0")
            message = _read_sync(self._sync)
        finally:
            self.close()
        if message.data < 0:
            raise explain(message.message, command)
        return Started(message.data, read_pid(self.directory / "conmon.pid"))

    def close(self) -> None:
        for fd in (self._sync, self._start):
            if fd >= 0:
                os.close(fd)
        self._sync = self._start = -1


def _launched(argv: Sequence[str], env: Mapping[str, str], fds: tuple[int, ...]) -> programs.Launch:
    """Start conmon. Its first process is to be reaped: conmon forks and its child is adopted by init."""
    # conmon stamps log lines in local time; UTC keeps them comparable as text.
    try:
        return programs.Launch(argv, env={"TZ": "UTC", **env}, pass_fds=fds)
    except programs.CommandFailed as e:
        raise Internal(f"cannot run conmon: {e.message}") from e


def _spawn(argv: Sequence[str], env: Mapping[str, str], fds: tuple[int, ...]) -> None:
    """Start conmon and reap its first process."""
    launch = _launched(argv, env, fds)
    try:
        launch.wait(_CREATE_TIMEOUT)
    except programs.CommandFailed as e:
        raise Internal(f"cannot run conmon: {e.message}") from e


def _read_sync(fd: int) -> SyncMessage:
    """The first JSON line from conmon; a short exec's exit status may follow it at once.

    :raises Internal: it died without a word, or took too long.
    """
    data = b""
    deadline = time.monotonic() + _CREATE_TIMEOUT
    while b"\n" not in data:
        if not readable(fd, deadline - time.monotonic()):
            raise Internal(f"cannot start container: conmon did not answer within {_CREATE_TIMEOUT:g} s")
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        data += chunk
    try:
        return typed.from_json(data.partition(b"\n")[0], SyncMessage)
    except msgspec.DecodeError as e:
        raise Internal(f"cannot start container: conmon ended early: {data[:200]!r}") from e


def read_pid(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as e:
        raise Internal(f"cannot read {path}: {e}") from e
