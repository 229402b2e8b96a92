"""The DNS server's event loop, on one thread: readable sockets, timers, calls from other threads."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Loop:
    """All methods except :meth:`call`, :meth:`run_in` and :meth:`close` are for the loop's own thread."""

    def __init__(self, name: str) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._ready: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._work: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the loop's thread, soon."""
        self._work.append(work)
        os.eventfd_write(self._wake, 1)

    def run_in(self, work: Callable[[], None]) -> None:
        """As :meth:`call`, but wait until it has run."""
        done = threading.Event()

        def both() -> None:
            try:
                work()
            finally:
                done.set()

        self.call(both)
        done.wait()

    def close(self) -> None:
        def stop() -> None:
            self._stopping = True

        self.call(stop)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def watch(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call ``ready`` whenever the descriptor is readable (or writable). Replaces an earlier call."""
        events = select.EPOLLOUT if write else select.EPOLLIN
        if fd in self._ready:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        """Call this before closing the descriptor. If it is not watched, nothing happens."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), work))

    def _run(self) -> None:
        while not self._stopping:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, _events in self._epoll.poll(timeout):
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                    while self._work:
                        self._safely(self._work.popleft())
                else:
                    ready = self._ready.get(fd)
                    if ready is not None:
                        self._safely(ready)
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._safely(heapq.heappop(self._timers)[2])

    @staticmethod
    def _safely(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            _log.exception("a question about a name was not answered")
