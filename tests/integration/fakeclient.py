"""A client of BuildKit's wire made of our own transport: it says what the plugins never would.

It speaks HTTP/2 from the first byte on the API's own socket, and serves its session within the connection.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.buildkit.proto import (
    control_pb2,
    fsutil_pb2,
    gateway_pb2,
    ops_pb2,
    policy_pb2,
)
from wherry.buildkit.proto.control_rpc import Control
from wherry.buildkit.proto.filesync_rpc import FileSync
from wherry.buildkit.proto.gateway_rpc import LLBBridge
from wherry.buildkit.proto.policy_rpc import PolicyVerifier
from wherry.rpc.client import Client
from wherry.rpc.metadata import Metadata
from wherry.rpc.server import Route, Server, ServerCall, on
from wherry.rpc.tunnel import Tunnel

Packet = fsutil_pb2.Packet
Stat = fsutil_pb2.Stat
SyncCall = ServerCall[fsutil_pb2.Packet, fsutil_pb2.Packet]
Serve = Callable[[SyncCall], Awaitable[None]]
DIRECTORY, SYMLINK, PIPE, DEVICE = 1 << 31, 1 << 27, 1 << 25, 1 << 26


def file(path: str, data: bytes = b"", *, size: int | None = None, mode: int = 0o644) -> fsutil_pb2.Stat:
    return Stat(path=path, mode=mode, size=len(data) if size is None else size, modTime=10**18)


async def serve_files(
    call: SyncCall, stats: Sequence[fsutil_pb2.Stat], contents: Mapping[str, Sequence[bytes]]
) -> None:
    """An honest sender: what it walks is ``stats``, in their order, whatever that is."""
    for stat in stats:
        await call.send(Packet(type=Packet.PACKET_STAT, stat=stat))
    await call.send(Packet())
    async for packet in call:
        if packet.type == Packet.PACKET_FIN:
            await call.send(Packet(type=Packet.PACKET_FIN))
            return
        for piece in contents.get(stats[packet.ID].path, ()):
            await call.send(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=piece))
        await call.send(Packet(type=Packet.PACKET_DATA, ID=packet.ID))


@dataclass
class FakeClient:
    """``dockerfile`` is sent as one; ``context`` serves the main context."""

    client: Client
    dockerfile: bytes = b"FROM scratch\nCOPY . /\n"
    context: Serve | None = None
    decide: Callable[[policy_pb2.CheckPolicyRequest], policy_pb2.CheckPolicyResponse] | None = None
    session: str = field(default_factory=lambda: secrets.token_hex(12))
    asked: list[str] = field(default_factory=list)
    """Directories that files were asked of, and what else was."""

    # ---- the session ---------------------------------------------------------------------------------------

    async def _sync(self, call: SyncCall) -> None:
        directory = call.metadata.get("dir-name")
        follow = call.metadata.all("followpaths")
        self.asked.append(f"{directory} {' '.join(follow)}".strip())
        if directory == "dockerfile":
            stat = file("Dockerfile", self.dockerfile)
            await serve_files(call, [stat], {"Dockerfile": [self.dockerfile]})
        elif follow or self.context is None:
            await serve_files(call, [], {})
        else:
            await self.context(call)

    async def _check(
        self, request: policy_pb2.CheckPolicyRequest, _call: Any
    ) -> policy_pb2.CheckPolicyResponse:
        assert self.decide is not None
        self.asked.append(request.Source.Source.identifier)
        return self.decide(request)

    def _routes(self) -> list[Route]:
        found = [on(FileSync.DiffCopy, self._sync)]
        if self.decide is not None:
            found.append(on(PolicyVerifier.CheckPolicy, self._check))
        return found

    @asynccontextmanager
    async def serving(self, identifier: str | None = None) -> AsyncIterator[None]:
        """Have a session."""
        routes = self._routes()
        pairs = [
            ("x-docker-expose-session-uuid", identifier or self.session),
            ("x-docker-expose-session-sharedkey", "lab:" + self.session),
        ]
        pairs += [("x-docker-expose-session-grpc-method", method.path) for method, _ in routes]
        server = Server(routes)
        async with self.client.stream(Control.Session, Metadata(pairs)) as call:
            tunnel: Tunnel[Any, Any] = Tunnel(
                call, lambda data: control_pb2.BytesMessage(data=data), lambda message: message.data
            )
            await call.headers()
            server.serve(tunnel)
            carrying = asyncio.ensure_future(tunnel.carry())
            try:
                yield
            finally:
                carrying.cancel()
                await asyncio.gather(carrying, return_exceptions=True)

    # ---- builds --------------------------------------------------------------------------------------------

    async def solve(self, **fields: Any) -> control_pb2.SolveResponse:
        """A plain build by the Dockerfile frontend."""
        fields = {
            "Ref": secrets.token_hex(12),
            "Session": self.session,
            "Frontend": "dockerfile.v0",
            **fields,
        }
        return await self.client.unary(Control.Solve, control_pb2.SolveRequest(**fields), timeout=60)

    async def build(self, **fields: Any) -> control_pb2.SolveResponse:
        async with self.serving():
            return await self.solve(**fields)

    @asynccontextmanager
    async def open(self, **fields: Any) -> AsyncIterator[Bridge]:
        """A build that the client drives itself."""
        ref = secrets.token_hex(12)
        request = control_pb2.SolveRequest(Ref=ref, Session=self.session, Internal=True, **fields)
        async with self.serving():
            solving = asyncio.ensure_future(self.client.unary(Control.Solve, request, timeout=60))
            bridge = Bridge(self.client, ref, solving)
            try:
                await bridge.ask(LLBBridge.Ping, gateway_pb2.PingRequest())
                yield bridge
            finally:
                solving.cancel()
                await asyncio.gather(solving, return_exceptions=True)


@dataclass
class Bridge:
    client: Client
    ref: str
    solving: asyncio.Future[control_pb2.SolveResponse]

    async def ask(self, method: Any, request: Any) -> Any:
        metadata = Metadata({"buildkit-controlapi-buildid": self.ref})
        return await self.client.unary(method, request, metadata, timeout=60)

    async def evaluate(self, *ops: ops_pb2.Op) -> str:
        """The ref of a definition's result; each operation is the input of the next."""
        result = await self.ask(LLBBridge.Solve, gateway_pb2.SolveRequest(Definition=definition(*ops)))
        found: str = result.result.ref.id
        return found


def definition(*ops: ops_pb2.Op) -> ops_pb2.Definition:
    import hashlib

    made = ops_pb2.Definition()
    digest = ""
    for given in (*ops, ops_pb2.Op()):
        op = ops_pb2.Op()
        op.CopyFrom(given)
        if digest:
            op.inputs.add(digest=digest)
        data = op.SerializeToString()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        made.ops.append(data)
        made.metadata[digest].SetInParent()
    return made


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Client]:
    from wherry.rpc.connection import Connection

    loop = asyncio.get_running_loop()
    connection = Connection()
    await loop.create_unix_connection(lambda: connection, str(socket))
    client = Client(connection)
    try:
        yield client
    finally:
        connection.close()


def exporters(*kinds: str) -> Iterable[control_pb2.Exporter]:
    return [control_pb2.Exporter(Type=kind) for kind in kinds]
