"""Clients of a daemon under test: plain HTTP on its socket, and programs on terminals."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patience import Deadline, patiently

TIMEOUT = 30.0
"""Seconds of an ordinary machine after which whatever is waited for has hung."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=patiently(TIMEOUT))
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(patiently(TIMEOUT))
        self.sock.connect(str(self._path))


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace").strip()

    @property
    def message(self) -> str:
        text: str = self.json["message"]
        return text


class Done:
    """A finished docker CLI call."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw, self.errors = code, out, err.decode(errors="replace")

    @property
    def out(self) -> str:
        return self.raw.decode(errors="replace").strip()

    def ok(self) -> str:
        """Standard output of a call that must have succeeded."""
        assert self.code == 0, f"exit {self.code}: {self.errors}"
        return self.out


class Terminal:
    """The far end of a terminal some program runs on."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process, self.fd = process, fd
        self.seen = b""

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def expect(self, text: bytes, timeout: float = TIMEOUT) -> bytes:
        """Read until ``text`` appears; return what came up to its end."""
        deadline = Deadline(timeout)
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], min(1.0, deadline.left()))
            assert ready or not deadline.passed, f"{text!r} did not come: {self.seen!r}"
            if not ready:
                continue
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                chunk = b""
            assert chunk, f"the terminal ended before {text!r}: {self.seen!r}"
            self.seen += chunk
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def resize(self, rows: int, columns: int) -> None:
        import struct
        import termios

        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.killpg(self.process.pid, signal.SIGWINCH)

    def wait(self) -> int:
        """The program's exit status. What it still prints is read meanwhile."""
        while self.process.poll() is None:
            ready, _, _ = select.select([self.fd], [], [], 0.02)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.fd, 65536)
        return self.process.returncode


def take_terminal() -> None:
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def on_terminal(command: Sequence[str], **options: Any) -> Iterator[Terminal]:
    """A program on a terminal of its own; killed at the end if it still runs."""
    primary, secondary = pty.openpty()
    try:
        process = subprocess.Popen(
            command,
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            start_new_session=True,
            preexec_fn=take_terminal,
            **options,
        )
        os.close(secondary)
        secondary = -1
        try:
            yield Terminal(process, primary)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    finally:
        os.close(primary)
        if secondary >= 0:
            os.close(secondary)
