"""The first process of an engine's room: a pid, mount and network namespace of its own.

Started by ``engines.Room`` through unshare(1) as ``room.py PROGRAM [ARGUMENT ...]``. It prepares the
namespaces, runs the daemon, reaps whatever the daemon's children leave behind, and ends the daemon when
its standard input ends; a line there kills the daemon and starts another. So the room goes away with the
bench, however that ends, and the kernel kills every process of a pid namespace whose first process has gone.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

GRACE = 15.0
"""Seconds between SIGTERM and giving the daemon up."""


def prepare() -> None:
    """Nothing of the host's runtime state is seen or written: containerd's shims have their sockets in
    ``/run``, and dockerd writes a key into ``/etc/docker``."""
    for directory in ("/run", "/etc/docker"):
        if Path(directory).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def reap(daemon: int) -> bool:
    """Reap every process that has ended; whether the daemon was one of them."""
    ended = False
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return ended
        ended = ended or pid == daemon


def supervise(argv: list[str]) -> None:
    """Until the daemon has ended; standard input's end asks it to, and a line there is for another one."""
    daemon = _spawned(argv)
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    deadline: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(wake_read, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not reap(daemon):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            for key, _events in selector.select(left):
                if key.fileobj is wake_read:
                    wake_read.recv(64)
                elif os.read(sys.stdin.fileno(), 64):
                    os.kill(daemon, signal.SIGKILL)
                    os.waitpid(daemon, 0)
                    daemon = _spawned(argv)
                else:
                    selector.unregister(sys.stdin)
                    os.kill(daemon, signal.SIGTERM)
                    deadline = time.monotonic() + GRACE


def _spawned(argv: list[str]) -> int:
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=[null])


def main() -> None:
    prepare()
    supervise(sys.argv[1:])


if __name__ == "__main__":
    main()
