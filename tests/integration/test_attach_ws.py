"""``attach/ws``: a terminal in a browser's own protocol, but not for any page in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from daemonlab import LabDaemon, new_base, wait_until
from freeports import free_port
from patience import patiently

Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]


def talk(daemon: LabDaemon, name: str, query: str, conversation: Talk) -> None:
    async def run() -> None:
        connector = aiohttp.UnixConnector(str(daemon.socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://localhost/containers/{name}/attach/ws?{query}"
            async with session.ws_connect(url) as socket:
                await asyncio.wait_for(conversation(socket), patiently(15))

    asyncio.run(run())


async def until(socket: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        message = await socket.receive()
        assert message.type == aiohttp.WSMsgType.BINARY, message
        data += message.data
    return data


def test_input_goes_in_and_output_comes_out(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-di", "--name", name, "busybox", "cat").ok()

    async def conversation(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_str("text\n")
        await until(socket, b"text\n")
        await socket.send_bytes(b"bytes\n")
        await until(socket, b"bytes\n")

    talk(daemon, name, "stream=1&stdin=1&stdout=1&stderr=1", conversation)
    assert daemon.state_of(name)["Running"]


def test_the_log_comes_first_and_the_end_closes(daemon: LabDaemon, name: str) -> None:
    script = "echo before; read x; echo after >&2"
    daemon.docker("run", "-di", "--name", name, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: "before" in daemon.docker("logs", name).out)

    async def conversation(socket: aiohttp.ClientWebSocketResponse) -> None:
        await until(socket, b"before\n")
        await socket.send_bytes(b"go\n")
        await until(socket, b"after\n")
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE

    talk(daemon, name, "logs=1&stream=1&stdin=1&stdout=1&stderr=1", conversation)


def test_a_client_that_closes_is_let_go(daemon: LabDaemon, name: str) -> None:
    """The guard counts descriptors: a session that waited for output would keep its own."""
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()

    async def conversation(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.close()
        assert socket.close_code is not None

    before = daemon.traces()
    for _ in range(3):
        talk(daemon, name, "stream=1&stdout=1", conversation)
    wait_until(lambda: not daemon.difference(before))


def test_keys_detach(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-dit", "--name", name, "busybox", "cat").ok()

    async def conversation(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"x\n")
        await until(socket, b"x")
        await socket.send_bytes(b"\x01q")
        while (message := await socket.receive()).type == aiohttp.WSMsgType.BINARY:
            pass
        assert message.type == aiohttp.WSMsgType.CLOSE

    talk(daemon, name, "stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,q", conversation)
    assert daemon.state_of(name)["Running"]


def test_no_handshake_no_socket(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "true").ok()
    answer = daemon.api("GET", f"/containers/{name}/attach/ws")
    assert answer.status == 400 and "WebSocket" in answer.message
    assert daemon.api("GET", "/containers/none/attach/ws").status == 404


def test_a_page_from_elsewhere_is_refused() -> None:
    """A browser lets any page open a web socket to this machine; it says whose page it is."""
    import http.client

    port = free_port()
    base = new_base()
    hosts = ("--host", f"unix://{base}/x/wherry.sock", "--host", f"tcp://127.0.0.1:{port}")
    daemon = LabDaemon(base, *hosts)
    try:
        daemon.start()
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for headers, status in (
            (handshake, 404),
            ({**handshake, "Origin": "https://example.org"}, 403),
            ({**handshake, "Origin": f"http://127.0.0.1:{port}"}, 403),
            ({**handshake, "Host": "rebound.example.org"}, 403),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patiently(10))
            connection.request("GET", "/containers/none/attach/ws?stream=1", headers=headers)
            assert connection.getresponse().status == status, headers
            connection.close()
    finally:
        daemon.destroy()
