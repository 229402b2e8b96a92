"""What a client sends behind a request that takes its connection over."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from patience import patiently

from wherry.api.hijack import early_bytes
from wherry.api.recorder import Recorder

HEAD = b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
BEFORE = b"GET /before HTTP/1.1\r\nHost: h\r\n\r\n"


async def early_of(*pieces: bytes) -> bytes:
    """What the handler of ``/x`` finds, the pieces having come one by one."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    recorders: list[Recorder] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/before":
            recorders[0].answered()
            return web.Response()
        await request.read()
        await asyncio.sleep(0.05)  # a container is looked up: what comes meanwhile is the stream's
        seen.set_result(early_bytes(request))
        return web.Response()

    server = web.Server(handle)

    def protocol() -> Recorder:
        recorders.append(Recorder(server()))
        return recorders[-1]

    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(protocol, ours)
        try:
            for piece in pieces:
                theirs.sendall(piece)
                await asyncio.sleep(0.01)
            return await asyncio.wait_for(seen, patiently(10))
        finally:
            transport.close()
            await server.shutdown(0)


@pytest.mark.parametrize(
    ("pieces", "want"),
    [
        ([HEAD + b"\r\nearly"], b"early"),
        ([HEAD + b"\r\n", b"early"], b"early"),
        ([HEAD + b"\r\nGET / HTTP/1.1\r\n\r\n"], b"GET / HTTP/1.1\r\n\r\n"),
        ([HEAD + b"Content-Length: 2\r\n\r\n{}early"], b"early"),
        ([HEAD + b"Content-Length: 2\r\n\r\n{", b"}ear", b"ly"], b"early"),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nearly"], b"early"),
        ([HEAD + b"\r\n"], b""),
        ([BEFORE, HEAD + b"\r\nearly"], b"early"),
    ],
    ids=[
        "along", "right behind", "what looks like a request", "after a body", "in pieces", "after chunks",
        "nothing", "on a connection that was used",
    ],
)  # fmt: skip
def test_early_input(pieces: list[bytes], want: bytes) -> None:
    assert asyncio.run(early_of(*pieces)) == want


class Deaf(asyncio.Protocol):
    def __init__(self) -> None:
        self.count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)


def test_an_upload_is_passed_on_and_not_kept() -> None:
    inner = Deaf()
    recorder = Recorder(inner)
    for _ in range(100):
        recorder.data_received(bytes(1 << 20))
        assert len(recorder._seen) <= 256 << 10
    assert inner.count == 100 << 20
    recorder.answered()
    recorder.data_received(b"GET / HTTP/1.1")
    assert recorder._seen == b"GET / HTTP/1.1"
