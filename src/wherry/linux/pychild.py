"""A child that runs one function of this package, in a fresh, lean interpreter or in a fork of a clean one.

``-I -S``: no environment, no user site, no site-packages; the few directories it needs are handed over. It
inherits the descriptors it is given and no others. The same holds for a fork of the
:mod:`fork server <wherry.linux.forkserver>`, which is used when there is one that is ready.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Protocol

from wherry.linux.forkserver import ForkedProcess, ForkServer
from wherry.linux.process import environment

_BOOT = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from {0} import main; main(sys.argv[1:])"
_RESULT_MAX = 32 << 20
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


class _Process(Protocol):
    """What ``subprocess.Popen`` and :class:`ForkedProcess` have in common."""

    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


class PythonChild:
    """A running child; leaving the ``with`` kills it if it still runs, and reaps it.

    The first argument it gets is the number of a descriptor to write its result to.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        paths: Sequence[str],
        stdin: int,
        stdout: int,
        fds: Sequence[int] = (),
        server: ForkServer | None = None,
    ) -> None:
        """:param stdin: a descriptor, or ``PIPE`` or ``DEVNULL``. :param stdout: likewise.
        :param fds: further descriptors that it inherits, by the same numbers.
        :param server: the child is a fork of it if it is ready, else a new interpreter.

        :raises OSError: it cannot be started.
        """
        self._result, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            given = (write_end, *fds)
            words = (str(write_end), *arguments)
            forked = None if server is None else _forked(server, module, words, stdin, stdout, given)
            self.process: _Process = forked or subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT.format(module), ":".join(paths), *words],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                pass_fds=given,
                env=environment(),
                cwd="/",
            )
        except BaseException:
            os.close(self._result)
            raise
        finally:
            os.close(write_end)

    def __enter__(self) -> PythonChild:
        return self

    def frame(self) -> bytes | None:
        """One message (:func:`send_frame`) from the result pipe; ``None`` when it ended without one."""
        head = self._exactly(4)
        if head is None:
            return None
        size = int.from_bytes(head, "big")
        return self._exactly(size) if size <= _RESULT_MAX else None

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            piece = os.read(self._result, size - len(data))
            if not piece:
                return None
            data += piece
        return data

    def kill(self) -> None:
        """End it now; from any thread."""
        if self.process.returncode is None:
            self.process.kill()

    def result(self) -> tuple[bytes, int, str]:
        """Wait for its end: result, exit code (negative: signal), end of standard error."""
        pieces, total = [], 0
        while piece := os.read(self._result, 1 << 16):
            total += len(piece)
            if total > _RESULT_MAX:
                break
            pieces.append(piece)
        assert self.process.stderr is not None
        errors = self.process.stderr.read(1 << 16)
        return b"".join(pieces), self.process.wait(), errors.decode(errors="replace")[-4096:]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.wait()
        os.close(self._result)


def _forked(
    server: ForkServer,
    module: str,
    arguments: Sequence[str],
    stdin: int,
    stdout: int,
    fds: Sequence[int],
) -> ForkedProcess | None:
    """The child as a fork of the server; ``None`` if that is not ready."""
    with ExitStack() as theirs, ExitStack() as ours:

        def end(wanted: int, mode: str) -> tuple[int, IO[bytes] | None]:
            """The child's descriptor, and our end of it if it is a pipe."""
            if wanted == DEVNULL:
                fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                theirs.callback(os.close, fd)
                return fd, None
            if wanted != PIPE:
                return wanted, None
            reading, writing = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, reading if mode == "wb" else writing)
            own = ours.enter_context(os.fdopen(writing if mode == "wb" else reading, mode))
            return (reading if mode == "wb" else writing), own

        input_, stdin_pipe = end(stdin, "wb")
        output, stdout_pipe = end(stdout, "rb")
        errors, stderr_pipe = end(PIPE, "rb")
        assert stderr_pipe is not None
        process = ForkedProcess(stdin_pipe, stdout_pipe, stderr_pipe)
        places = [(input_, 0), (output, 1), (errors, 2), *((fd, fd) for fd in fds)]
        if not server.start(module, arguments, places, process):
            return None
        ours.pop_all()
        return process


def send_frame(result_fd: int, *fields: bytes) -> None:
    """In the child: one message of fields separated by NUL, for :meth:`PythonChild.frame`."""
    payload = b"\0".join(fields)
    data = memoryview(len(payload).to_bytes(4, "big") + payload)
    while data:
        data = data[os.write(result_fd, data) :]
