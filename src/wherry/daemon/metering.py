"""``--metrics-addr``: its socket, and the metrics room, imported only when it is given."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from wherry import threads
from wherry.daemon.metricsconfig import MetricsConfig
from wherry.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from wherry.daemon.wiring import Daemon
    from wherry.metrics.server import MetricsServer

log = logging.getLogger(__name__)


@asynccontextmanager
async def metered(daemon: Daemon, config: MetricsConfig | None) -> AsyncIterator[None]:
    """Serve metrics during the ``with``.

    :raises Unavailable: the address cannot be bound. :raises Conflict: it is in use.
    """
    if config is None:
        yield
        return
    listener = await threads.names(_bound, config.address)
    server: MetricsServer | None = None
    try:
        make = await threads.short(_imported)
        server = make(daemon, config)
        daemon.server.observers.append(server.counts)
        await server.start([listener])
        _tell(listener)
        yield
    finally:
        if server is not None:
            daemon.server.observers.remove(server.counts)
            await server.close()
        listener.close()


def _imported() -> Any:
    from wherry.metrics.reading import ShownContainers
    from wherry.metrics.server import MetricsServer

    def make(daemon: Daemon, config: MetricsConfig) -> MetricsServer:
        return MetricsServer(daemon.engine, ShownContainers(config.containers, config.labels))

    return make


def _bound(address: tuple[str, int]) -> socket.socket:
    """Blocks while the name is looked up."""
    shown = f"{address[0]}:{address[1]}"
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    except OSError as e:
        raise InvalidArgument(f"invalid metrics-addr {shown}: {e.strerror}") from e
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as e:
        listener.close()
        kind_of = Conflict if e.errno == errno.EADDRINUSE else Unavailable
        raise kind_of(f"cannot serve metrics on {shown}: {e.strerror}") from e
    return listener


def _tell(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    log.info("metrics are served on http://%s/metrics", shown)
    if not ipaddress.ip_address(host).is_loopback:
        log.warning("whoever reaches %s can read the metrics: names of containers, images and labels", shown)
