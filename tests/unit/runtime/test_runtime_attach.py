"""The attach socket against a peer that behaves as conmon does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

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
