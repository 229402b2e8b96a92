"""Removes what the tests have made when their process ends before it could do so itself, however it ends.

A process of its own, which an interrupt or a signal to the tests' process group does not reach. It is told of
directories on its standard input, ``+ PATH`` and ``- PATH``; at the end of the input it removes what is left
of them: daemons and every other process that names them, containers, networks, mounts, cgroups, files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_words = -1
"""Where the process hears; it is open until this process ends."""


def keep(path: Path) -> Path:
    """To be removed if this process ends before :func:`let_go`."""
    global _words
    if _words < 0:
        heard, _words = os.pipe2(os.O_CLOEXEC)
        # Not a Popen, which would warn at the end that its process still runs: that is what it is for.
        os.posix_spawn(
            sys.executable,
            [sys.executable, __file__],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, heard, 0)],
            setsid=True,
        )
        os.close(heard)
    _say("+", path)
    return path


def let_go(path: Path) -> None:
    """It has been removed."""
    if _words >= 0:
        _say("-", path)


def _say(what: str, path: Path) -> None:
    os.write(_words, f"{what} {path}\n".encode())


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[str, None] = {}
    for line in sys.stdin:
        what, _, path = line.rstrip("\n").partition(" ")
        if what == "+":
            left[path] = None
        else:
            left.pop(path, None)
    for path in reversed(left):
        if os.path.isdir(path):
            _remove(Path(path))


def _remove(base: Path) -> None:
    _kill(base)
    if (base / "r" / "wherry.db").exists():
        with contextlib.suppress(Exception):  # the rest is to be removed all the same
            sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "suites")]
            from daemonlab import LabDaemon

            LabDaemon(base).scrub()
    _kill(base)
    for _ in range(10):  # mounts on mounts
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        below = [point for point in points if point == str(base) or point.startswith(f"{base}/")]
        for point in reversed(below):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
        if not below:
            break
    shutil.rmtree(base, ignore_errors=True)


def _kill(base: Path) -> None:
    for _ in range(500):
        found = naming(base)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.01)


def naming(directory: Path) -> list[int]:
    """The processes whose command line names the directory or something in it."""
    base, found = os.fsencode(directory), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if base + b"/" in words or words.endswith(base + b"\0") or base + b"\0" in words:
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    _main()
