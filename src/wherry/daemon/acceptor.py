"""Accepts clients' connections as long as enough file descriptors are free.

If no descriptor is free, asyncio's own servers try to accept as often as the backlog is long, and log a
traceback for each try. This acceptor leaves clients in the kernel's queue while few descriptors are free, so
that running work can finish and be cleaned up. It logs that once, and tries again a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from wherry.linux import descriptors

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Connections accepted in one turn of the loop."""
_PAUSE = 0.25
_QUIET = 60.0
"""Seconds between two warnings."""


class Acceptor:
    """One listening socket. Used on the loop."""

    def __init__(self, listening: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._socket, self._factory = listening, factory
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._warned = -_QUIET

    def start(self) -> None:
        self._socket.setblocking(False)
        self._socket.listen(512)
        self._resume()

    def close(self) -> None:
        """Accept no more; the socket stays open."""
        self._loop.remove_reader(self._socket.fileno())
        if self._pause is not None:
            self._pause.cancel()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if descriptors.left() < descriptors.for_work():
                self._hold_back()
                return
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as e:
                log.debug("cannot accept: %s", e)
                self._hold_back()
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError as e:
            log.debug("a connection ended before it began: %s", e)
            connection.close()

    def _hold_back(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._resume)
        if (now := time.monotonic()) - self._warned >= _QUIET:
            self._warned = now
            log.warning(
                "taking no more connections for now: of %d file descriptors few are left "
                "(raise LimitNOFILE, or close idle clients)",
                descriptors.limit(),
            )
