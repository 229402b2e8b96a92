"""BuildKit's protocol on the engine: one table of methods for three kinds of connections.

POST /grpc       a connection taken over from HTTP/1.1: the client calls        -> Face.serve
HTTP/2 at once   the same with prior knowledge, on the API's listeners      -> Face.protocol
POST /session    taken over from HTTP/1.1: the daemon calls                     -> Face.session
                 (and Control.Session, a connection within a call)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wherry.buildkit.contents import ContentService
from wherry.buildkit.control import ControlService
from wherry.buildkit.gateway import Gateway
from wherry.buildkit.history import BuildHistory
from wherry.buildkit.jobs import Jobs
from wherry.buildkit.proto import health_pb2, trace_pb2
from wherry.buildkit.proto.health_rpc import Health
from wherry.buildkit.proto.trace_rpc import TraceService
from wherry.buildkit.sessions import ClientSessions
from wherry.buildkit.upkeep import CacheUpkeep
from wherry.buildkit.worker import BuildkitWorker
from wherry.engine.engine import Engine
from wherry.rpc.client import Client
from wherry.rpc.connection import Connection
from wherry.rpc.server import Server, ServerCall, on


class Face:
    """Made for the first such connection. Used on the loop."""

    def __init__(self, engine: Engine) -> None:
        self._sessions, jobs, worker = ClientSessions(), Jobs(), BuildkitWorker(engine)
        bridge = Gateway(engine.builds, jobs, self._sessions, worker)
        history, upkeep = BuildHistory(engine.builds), CacheUpkeep(engine.builds)
        control = ControlService(engine.builds, jobs, self._sessions, worker, bridge, history, upkeep)
        self._server = Server(
            [
                *control.routes(),
                *bridge.routes(),
                *ContentService(engine.stores.images.content, history.blob).routes(),
                on(TraceService.Export, _export),
                on(Health.Check, _check),
            ]
        )

    def protocol(self) -> Connection:
        """For a connection that speaks HTTP/2 from its first byte."""
        return self._server.protocol()

    async def serve(self, transport: asyncio.Transport, early: bytes) -> None:
        """Answer calls on a connection that was taken over, until it ends."""
        connection = self._server.serve(transport, early)
        try:
            await connection.wait_closed()
        finally:
            connection.close()

    def check_session(self, identifier: str) -> None:
        """Check that a session with this id may connect. :raises Conflict, InvalidArgument: it may not."""
        self._sessions.check(identifier)

    async def session(
        self, transport: asyncio.Transport, early: bytes, identifier: str, key: str, methods: Sequence[str]
    ) -> None:
        """Run a session on a connection that was taken over, until it ends."""
        client = Client.over(transport, early)
        try:
            await self._sessions.serve(identifier, key, methods, client)
        finally:
            client.connection.close()

    async def close(self) -> None:
        await self._server.close(grace=0.5)


async def _export(
    _request: trace_pb2.ExportTraceServiceRequest,
    _call: ServerCall[trace_pb2.ExportTraceServiceRequest, trace_pb2.ExportTraceServiceResponse],
) -> trace_pb2.ExportTraceServiceResponse:
    """Accept clients' own trace spans and drop them: the daemon has its own of the build (:mod:`traces`)."""
    return trace_pb2.ExportTraceServiceResponse()


async def _check(
    _request: health_pb2.HealthCheckRequest,
    _call: ServerCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
