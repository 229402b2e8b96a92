"""The attach socket against a peer that behaves as conmon does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from patience import patiently

from wherry.runtime.attach import AttachSocket


def test_what_was_printed_before_the_end_is_read(tmp_path: Path) -> None:
    """A process that ends without reading its input resets the connection; its last output is there all the
    same."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach"))
    listener.listen()

    async def run() -> bytes:
        attached = AttachSocket.connect(tmp_path, framed=False)
        conmon, _ = listener.accept()
        await attached.write(b"input that nobody reads")
        conmon.send(b"\x02one ")
        conmon.send(b"\x03two")
        conmon.close()
        found = b""
        while (data := await attached.read()) is not None:
            found += bytes(data)
        attached.close()
        return found

    try:
        assert asyncio.run(asyncio.wait_for(run(), patiently(20))) == b"one two"
    finally:
        listener.close()


def test_output_is_handed_over_until_it_is_refused_and_to_the_end(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach"))
    listener.listen()
    taken: list[bytes] = []

    def take(data: memoryview) -> bool:
        taken.append(bytes(data))
        return b"stop" not in taken[-1]

    async def run() -> list[bool]:
        attached = AttachSocket.connect(tmp_path, framed=True)
        conmon, _ = listener.accept()
        pumping = asyncio.create_task(attached.pump(take))
        for text in (b"\x02one", b"\x03stop"):
            await asyncio.sleep(0)
            conmon.send(text)
        answers = [await pumping]
        conmon.send(b"\x02last")
        conmon.close()
        answers += [await attached.pump(take)]
        attached.close()
        return answers

    try:
        assert asyncio.run(asyncio.wait_for(run(), patiently(20))) == [True, False]
    finally:
        listener.close()
    frames = [(1, b"one"), (2, b"stop"), (1, b"last")]
    assert b"".join(taken) == b"".join(bytes([n, 0, 0, 0, 0, 0, 0, len(t)]) + t for n, t in frames)


def test_what_the_client_raises_ends_the_handing_over(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach"))
    listener.listen()

    def gone(_data: memoryview) -> bool:
        raise ConnectionResetError("the client has gone")

    async def run() -> None:
        attached = AttachSocket.connect(tmp_path, framed=False)
        conmon, _ = listener.accept()
        conmon.send(b"\x02text")
        try:
            with pytest.raises(ConnectionResetError, match="the client has gone"):
                await attached.pump(gone)
        finally:
            conmon.close()
            attached.close()

    try:
        asyncio.run(asyncio.wait_for(run(), patiently(20)))
    finally:
        listener.close()


@pytest.mark.parametrize("framed", [True, False])
def test_much_output_is_whole(tmp_path: Path, framed: bool) -> None:
    """More than is received at once, at first and later."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach"))
    listener.listen()
    pieces = [bytes([65 + n % 26]) * (8192 - n) for n in range(200)]

    async def run() -> bytes:
        attached = AttachSocket.connect(tmp_path, framed=framed)
        conmon, _ = listener.accept()

        def print_all() -> None:
            with conmon:
                for piece in pieces:
                    conmon.send(b"\x02" + piece)

        printing = asyncio.create_task(asyncio.to_thread(print_all))
        found = bytearray()

        def take(data: memoryview) -> bool:
            found.extend(data)
            return len(found) % 3 > 0

        while await attached.pump(take):
            pass
        await printing
        attached.close()
        return bytes(found)

    try:
        found = asyncio.run(asyncio.wait_for(run(), patiently(60)))
    finally:
        listener.close()
    heads = [b"\x01\0\0\0" + len(piece).to_bytes(4, "big") if framed else b"" for piece in pieces]
    assert found == b"".join(head + piece for head, piece in zip(heads, pieces, strict=True))
