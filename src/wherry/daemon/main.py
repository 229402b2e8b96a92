"""``wherryd``: start-up, signals, and the end."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

from wherry import __version__
from wherry.daemon import config as configuration
from wherry.daemon import listeners, logs, wiring
from wherry.daemon.config import Config
from wherry.daemon.tls import TlsProtocol
from wherry.errors import Conflict, Unavailable, WherryError

log = logging.getLogger(__name__)


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        config, mode = configuration.load(arguments)
        if mode == "validate":
            print("configuration OK")
            return 0
        logs.configure(config.log_level, config.log_format)
        if os.geteuid() != 0:
            raise Unavailable("wherryd must run as root")
        # Whoever started it: what the daemon and its children make is not for others to write.
        os.umask(0o022)
        with PidFile(config):
            if mode == "teardown":
                wiring.teardown(config)
            else:
                asyncio.run(_serve(config))
    except WherryError as e:
        print(f"wherryd: {e.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class PidFile:
    """``<run>/wherryd.pid``, locked for as long as the daemon lives: one daemon a root and run directory."""

    def __init__(self, config: Config) -> None:
        self._path = config.pidfile or config.run / "wherryd.pid"
        self._lock_path = config.root / "wherryd.lock"
        self._lock = -1

    def __enter__(self) -> PidFile:
        for directory, mode in ((self._path.parent, 0o711), (self._lock_path.parent, 0o710)):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=mode)
            except OSError as e:
                raise Unavailable(f"cannot make {directory}: {e.strerror}") from e
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(self._lock)
            if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise Conflict(f"another daemon uses {self._lock_path.parent}") from e
            raise Unavailable(f"cannot lock {self._lock_path}: {e.strerror}") from e
        self._path.write_text(f"{os.getpid()}\n")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._lock)


async def _serve(config: Config) -> None:
    began = time.monotonic()
    log.info("wherryd %s starts: root %s, run %s", __version__, config.root, config.run)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    daemon = wiring.build(config)
    opened: list[listeners.Listener] = []
    servers: list[asyncio.Server] = []
    try:
        opened = listeners.open_all(config)
        await daemon.start()
        servers += [await _listen(daemon, listener) for listener in opened]
        log.info("API listens on %s (%.0f ms)", listeners.describe(opened), (time.monotonic() - began) * 1e3)
        _notify_ready()
        await daemon.reconciler.restart()
        await stopping.wait()
        log.info("stopping; containers go on running")
    finally:
        for server in servers:
            server.close()
        await daemon.server.close(timeout=config.shutdown_timeout)
        await daemon.stop()
        for listener in opened:
            listener.close()
    log.info("stopped")


async def _listen(daemon: wiring.Daemon, listener: listeners.Listener) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if listener.socket.family == socket.AF_UNIX:
        return await loop.create_unix_server(daemon.server.http, sock=listener.socket, backlog=512)
    context = listener.context
    if context is None:
        return await loop.create_server(daemon.server.http, sock=listener.socket, backlog=512)
    return await loop.create_server(
        lambda: TlsProtocol(context, daemon.server.http), sock=listener.socket, backlog=512
    )


def _notify_ready() -> None:
    """Tell the service manager (sd_notify(3)) where there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        target = "\0" + address[1:] if address.startswith("@") else address
        try:
            notify.sendto(b"READY=1", target)
        except OSError as e:
            log.warning("cannot notify the service manager: %s", e)


if __name__ == "__main__":
    entry()
