"""Bodies that a thread sends from a pipe: in chunks, whole, as fast as the client reads, and to an end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from wherry.api.pouring import pour


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    ends = [reading, writing]
    yield reading, writing
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        out, data = out + data[:length], data[length:]
        assert data[:2] == b"\r\n"
        data = data[2:]
    return out


def written(fd: int, data: bytes) -> threading.Thread:
    def write() -> None:
        with os.fdopen(fd, "wb", buffering=0) as file:
            view = memoryview(data)
            try:
                while view:
                    view = view[file.write(view) :]
            except BrokenPipeError:
                return

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_what_comes_arrives(pipe: tuple[int, int], sockets: tuple[socket.socket, socket.socket]) -> None:
    data = os.urandom(5 << 20)
    writer = written(pipe[1], data)
    got: list[bytes] = []

    def read() -> None:
        while piece := sockets[1].recv(1000 if len(got) < 50 else 1 << 16):
            got.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    asyncio.run(pour(pipe[0], sockets[0].fileno()))
    sockets[0].shutdown(socket.SHUT_WR)
    reader.join()
    writer.join()
    assert unchunked(b"".join(got)) == data


def test_an_empty_pipe_sends_nothing(
    pipe: tuple[int, int], sockets: tuple[socket.socket, socket.socket]
) -> None:
    os.close(pipe[1])
    asyncio.run(pour(pipe[0], sockets[0].fileno()))
    sockets[0].shutdown(socket.SHUT_WR)
    assert sockets[1].recv(10) == b""


def test_a_client_that_goes_is_an_error(
    pipe: tuple[int, int], sockets: tuple[socket.socket, socket.socket]
) -> None:
    writer = written(pipe[1], bytes(5 << 20))
    leaving = threading.Thread(target=lambda: (sockets[1].recv(100), sockets[1].close()))
    leaving.start()
    with pytest.raises(ConnectionResetError):
        asyncio.run(pour(pipe[0], sockets[0].fileno()))
    os.close(pipe[0])
    leaving.join()
    writer.join()


@pytest.mark.parametrize("stalls", ["client", "source"])
def test_it_can_be_broken_off_while_it_waits(
    pipe: tuple[int, int], sockets: tuple[socket.socket, socket.socket], stalls: str
) -> None:
    writer = written(pipe[1], bytes(5 << 20)) if stalls == "client" else None

    async def run() -> None:
        task = asyncio.ensure_future(pour(pipe[0], sockets[0].fileno()))
        if stalls == "client":
            await asyncio.to_thread(sockets[1].recv, 100)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    os.close(pipe[0])
    if writer is not None:
        writer.join()
