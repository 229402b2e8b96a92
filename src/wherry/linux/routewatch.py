"""A watch on routes that appear in the host's namespace (rtnetlink(7))."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable

from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket

_RTNLGRP_IPV4_ROUTE, _RTNLGRP_IPV6_ROUTE = 7, 11


class RouteWatch:
    """Calls back, on a thread of its own, with every route that is added to the main table."""

    def __init__(self, added: Callable[[rt.Route], None]) -> None:
        self._added = added
        self._sockets = [NetlinkSocket(group=group) for group in (_RTNLGRP_IPV4_ROUTE, _RTNLGRP_IPV6_ROUTE)]
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="route-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for sock in self._sockets:
            sock.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        by_fd = {sock.fileno(): sock for sock in self._sockets}
        for fd in (*by_fd, self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._stop:
                    return
                self._read(by_fd[fd])

    def _read(self, sock: NetlinkSocket) -> None:
        try:
            received = sock.notifications()
        except OSError as e:
            if e.errno == errno.ENOBUFS:
                return  # some were lost; this is a courtesy
            raise
        for message in received:
            route = rt.added_route(message)
            if route is not None:
                self._added(route)
