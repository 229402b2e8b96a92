"""Messages on a stream: five bytes of prefix, then the message (gRPC over HTTP/2, "Length-Prefixed-Message").

+----------------+-------------+----------------+
| compressed (8) | length (32) | message        |
+----------------+-------------+----------------+
"""

from __future__ import annotations

import struct
import zlib
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from wherry.rpc.metadata import Headers
from wherry.rpc.methods import Message
from wherry.rpc.status import Code, RpcError
from wherry.rpc.streams import Stream

_PREFIX = struct.Struct(">BI")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS

O = TypeVar("O", bound=Message)  # noqa: E741 - what goes out
I = TypeVar("I", bound=Message)  # noqa: E741 - what comes in

ACCEPTED = b"identity,gzip"


class Messages(Generic[O, I]):
    """Both sides of a call: send messages of one type, receive those of another."""

    def __init__(self, stream: Stream, incoming: type[I], limit: int) -> None:
        self._stream = stream
        self._incoming = incoming
        self._limit = limit
        self._encoding = b""

    def expect(self, headers: Headers) -> None:
        """Read the peer's compression from its headers.

        :raises RpcError: the compression is not supported.
        """
        self._encoding = dict(headers).get(b"grpc-encoding", b"identity")
        if self._encoding not in (b"identity", b"gzip"):
            name = self._encoding[:40].decode("latin-1")
            raise RpcError(Code.UNIMPLEMENTED, f"cannot read messages: compression {name!r} is not supported")

    async def send(self, message: O, end: bool = False) -> None:
        """Send one message; ``end``: it is the last one. Waits while the peer accepts no data.

        :raises RpcError: the call was broken off.
        """
        data = message.SerializeToString()
        await self._stream.send(_PREFIX.pack(0, len(data)) + data, end)

    async def receive(self) -> I | None:
        """The next message; None at the end.

        :raises RpcError: the call was broken off, or the message is malformed or too large.
        """
        stream = self._stream
        if not await stream.wait_data():
            return None
        compressed, length = _PREFIX.unpack(await self._bytes(_PREFIX.size))
        if compressed > 1 or (compressed and self._encoding != b"gzip"):
            raise RpcError(
                Code.INTERNAL, "cannot read a message: it is packed in a way that was not announced"
            )
        if length > self._limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"cannot read a message: {length} bytes are more than the {self._limit} that are taken",
            )
        data = await self._bytes(length)
        if compressed:
            data = self._unpacked(data)
        message = self._incoming()
        try:
            message.ParseFromString(data)
        except DecodeError as e:
            raise RpcError(Code.INTERNAL, f"cannot read a message: {e}") from e
        return message

    def __aiter__(self) -> Messages[O, I]:
        return self

    async def __anext__(self) -> I:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _bytes(self, size: int) -> bytes:
        stream = self._stream
        if stream.available >= size:
            return stream.take(size)
        parts: list[bytes] = []
        held = 0
        try:
            while held < size:
                if not await stream.wait_data():
                    raise RpcError(Code.INTERNAL, "cannot read a message: it ends too early")
                part = min(size - held, stream.available)
                if not stream.budget.take(part):
                    raise RpcError(
                        Code.RESOURCE_EXHAUSTED, "cannot read a message: too many others are half read"
                    )
                held += part
                parts.append(stream.take(part))
        finally:
            stream.budget.give(held)
        return b"".join(parts)

    def _unpacked(self, data: bytes) -> bytes:
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        try:
            whole = unpacker.decompress(data, self._limit + 1)
        except zlib.error as e:
            raise RpcError(Code.INTERNAL, f"cannot read a message: {e}") from e
        if len(whole) > self._limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"cannot read a message: unpacked it has more than {self._limit} bytes",
            )
        if not unpacker.eof or unpacker.unused_data:
            raise RpcError(Code.INTERNAL, "cannot read a message: its gzip data is not whole")
        return whole
