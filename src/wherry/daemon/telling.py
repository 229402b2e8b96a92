"""Traces, where the environment names an endpoint for them; the room is imported only then."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wherry import threads
from wherry.mishaps import contained

if TYPE_CHECKING:
    from wherry.daemon.wiring import Daemon
    from wherry.state.builds import HistoryRow
    from wherry.tracing.exporter import TraceExporter

log = logging.getLogger(__name__)


@asynccontextmanager
async def traced(daemon: Daemon) -> AsyncIterator[None]:
    """Send traces of requests and builds during the ``with``.

    :raises InvalidArgument: the environment asks for something that cannot be done.
    """
    if not any(name.startswith("OTEL_") for name in os.environ):
        yield
        return
    from wherry.tracing import settings

    if not settings.named(os.environ):
        yield
        return
    wanted = settings.read(os.environ)
    await threads.short(_import)
    from wherry.tracing.exporter import TraceExporter
    from wherry.tracing.spans import RequestSpans

    exporter = TraceExporter(wanted)
    observer = RequestSpans(exporter.take)
    daemon.server.observers.append(observer)
    watching = asyncio.create_task(_watch_builds(daemon, exporter))
    log.info("traces are sent to %s", wanted.endpoint)
    try:
        yield
    finally:
        daemon.server.observers.remove(observer)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await exporter.close()


def _import() -> None:
    """Not on the loop, where requests would wait."""
    import wherry.tracing.exporter  # noqa: F401


async def _watch_builds(daemon: Daemon, exporter: TraceExporter) -> None:
    from wherry.engine.builds.spans import spans_of
    from wherry.tracing.spans import of_build

    def ended(row: HistoryRow) -> None:
        with contained("trace a build"):
            for span in spans_of(row):
                exporter.take(of_build(span))

    await daemon.engine.open_builds()
    daemon.engine.builds.closed.append(ended)
