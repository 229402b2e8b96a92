"""The listener of ``--metrics-addr``: ``GET /metrics``, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from wherry.engine.engine import Engine
from wherry.errors import WherryError
from wherry.metrics.counts import Counts
from wherry.metrics.reading import HostCollector, ShownContainers, read

log = logging.getLogger(__name__)


class MetricsServer:
    """Made on the loop's thread, after the engine."""

    def __init__(self, engine: Engine, shown: ShownContainers) -> None:
        self._engine, self._shown = engine, shown
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self.counts = Counts(self._registry)
        self._host = HostCollector(engine, shown)
        self._registry.register(self._host)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.ServerRunner | None = None

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Answer on bound sockets, which :meth:`close` closes."""
        self._tasks = [
            asyncio.create_task(self.counts.follow(self._engine.events)),
            asyncio.create_task(self.counts.watch_loop()),
        ]
        self._engine.processes.health.checked.append(lambda failed: self.counts.checked(failed=failed))
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await self._runner.setup()
        for listener in listeners:
            await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            return web.Response(status=404, text="only /metrics is here\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET is answered\n", headers={"Allow": "GET, HEAD"})
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        try:
            found = await read(self._engine, self._shown)
        except WherryError as e:
            log.warning("no metrics: %s", e.message)
            return web.Response(status=503, text=f"{e.message}\n")
        with self._host.telling(found):
            body = encode(self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})
