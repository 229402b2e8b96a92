"""``wherryd``: start-up, signals, and the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from wherry import __version__, memory, threads
from wherry.daemon import config as configuration
from wherry.daemon import database, listeners, logs, metering, telling, wiring
from wherry.daemon.acceptor import Acceptor
from wherry.daemon.claim import Claim
from wherry.daemon.config import Config
from wherry.daemon.tls import TlsProtocol
from wherry.errors import Unavailable, WherryError
from wherry.linux import descriptors
from wherry.state.database import WAY_OUT

log = logging.getLogger(__name__)


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    if arguments[:1] == ["doctor"]:
        return _doctor(arguments[1:])
    try:
        config, mode = configuration.load(arguments)
        if mode == "validate":
            print("configuration OK")
            return 0
        logs.configure(config.log_level, config.log_format)
        if os.geteuid() != 0:
            raise Unavailable("wherryd must run as root")
        # Whatever umask was inherited: other users must not write to files of the daemon and its children.
        os.umask(0o022)
        descriptors.raise_limit()
        memory.settle()
        with Claim(config.root, config.run, config.pidfile):
            if mode == "teardown":
                wiring.teardown(config)
            elif mode == "rebuild":
                asyncio.run(wiring.rebuild(config))
            elif mode == "restore":
                asyncio.run(wiring.restore(config))
            else:
                asyncio.run(_serve(config))
    except WherryError as e:
        print(f"wherryd: {e.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _doctor(arguments: Sequence[str]) -> int:
    """``wherryd doctor``: also where the daemon would not start."""
    from wherry.doctor import report

    try:
        options, rest = report.options(arguments)
        config, _ = configuration.load(rest)
        return report.run(options, [config.root, config.run], sorted(config.runtimes.values()))
    except WherryError as e:
        print(f"wherryd: {e.message}", file=sys.stderr)
        return 1


async def _serve(config: Config) -> None:
    began = time.monotonic()
    log.info("wherryd %s starts: root %s, run %s", __version__, config.root, config.run)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    memory.grow()
    try:
        daemon = wiring.build(config)
    except msgspec.MsgspecError as e:
        raise Unavailable(f"cannot start: a row of the database does not read: {e}: {WAY_OUT}") from e
    opened: list[listeners.Listener] = []
    acceptors: list[Acceptor] = []
    try:
        opened = listeners.open_all(config)
        async with telling.traced(daemon), metering.metered(daemon, config.metrics):
            await daemon.engine.start()
            acceptors += [_listen(daemon, listener) for listener in opened]
            log.info(
                "API listens on %s (%.0f ms)", listeners.describe(opened), (time.monotonic() - began) * 1e3
            )
            memory.keep()
            _notify_ready()
            daemon.engine.resume()
            copying = asyncio.create_task(database.keep_copy(daemon.db, config.root))
            await stopping.wait()
        copying.cancel()
        with suppress(asyncio.CancelledError):
            await copying
        await threads.disk(database.copy, daemon.db, config.root)
        log.info("stopping; containers keep running")
    finally:
        for acceptor in acceptors:
            acceptor.close()
        await daemon.server.close(timeout=config.shutdown_timeout)
        await daemon.close()
        for listener in opened:
            listener.close()
    log.info("stopped")


def _listen(daemon: wiring.Daemon, listener: listeners.Listener) -> Acceptor:
    context, http = listener.context, daemon.protocol
    acceptor = Acceptor(listener.socket, http if context is None else lambda: TlsProtocol(context, http))
    acceptor.start()
    return acceptor


def _notify_ready() -> None:
    """Tell the service manager (sd_notify(3)), if there is one."""
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
