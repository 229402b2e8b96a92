"""Commands that are timed: a monotonic clock around one process, and an end to those that hang."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

TIMEOUT = 60.0
"""Seconds after which a command has hung."""
_KEEP = 400


class Failed(Exception):
    """A command failed or hung, or something was left behind: the words say which."""


def environment(home: str, **extra: str) -> dict[str, str]:
    """Of every client: the same for both engines, with nothing of the user's own configuration."""
    return {"PATH": os.environ["PATH"], "HOME": home, "DOCKER_CLI_HINTS": "false", **extra}


def wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Whether it ended within ``timeout`` seconds. ``Popen.wait`` with a timeout sleeps up to 50 ms too
    long; a pidfd wakes at once."""
    if process.poll() is not None:
        return True
    fd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return False
    finally:
        os.close(fd)
    process.wait()
    return True


def timed(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout: float = TIMEOUT,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> float:
    """Seconds from before the process was made until it was reaped.

    :raises Failed: it exited non-zero or took longer than ``timeout`` seconds.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=errors,
        )
        try:
            ended = wait(process, timeout)
            seconds = time.perf_counter() - began
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        if ended and process.returncode == 0:
            return seconds
        errors.seek(0)
        text = errors.read().decode(errors="replace").strip()[-_KEEP:]
    reason = f"exit status {process.returncode}" if ended else f"no end within {timeout:g} s"
    raise Failed(f"{' '.join(argv[:8])}: {reason}{': ' if text else ''}{text}")


def output(argv: Sequence[str], env: Mapping[str, str], *, timeout: float = TIMEOUT) -> str:
    """Standard output of a command, stripped. :raises Failed: as :func:`timed`."""
    with tempfile.TemporaryFile() as out:
        timed(argv, env, timeout=timeout, stdout=out)
        out.seek(0)
        return out.read().decode(errors="replace").strip()
