"""A transport over a gRPC stream: the bytes of another connection are messages of a call.

    connection within  <- data_received - Tunnel <- receive - call of the connection without
                        - write ------->        -  send  ->

Written bytes are buffered here while the call accepts no data, and the inner connection is paused. Messages
are not read from the call while the inner connection has paused reading. So the windows of the outer call
limit the buffers, as with a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from wherry.rpc.status import RpcError

O = TypeVar("O", contravariant=True)  # noqa: E741 - what goes out
I = TypeVar("I", covariant=True)  # noqa: E741 - what comes in
P = TypeVar("P")
U = TypeVar("U")

_CHUNK = 512 << 10
_HIGH_WATER = 512 << 10


class MessageStream(Protocol[O, I]):
    """A call in either role whose messages are pieces of bytes."""

    async def send(self, message: O) -> None: ...

    async def receive(self) -> I | None: ...


class Tunnel(asyncio.Transport, Generic[P, U]):
    """Give it a protocol (``Client.over(tunnel)``, ``server.serve(tunnel)``), then run :meth:`carry`.

    :param pack: makes a message of bytes
    :param unpack: the bytes of a message
    """

    def __init__(
        self, call: MessageStream[P, U], pack: Callable[[bytes], P], unpack: Callable[[U], bytes]
    ) -> None:
        super().__init__()
        self._call = call
        self._pack = pack
        self._unpack = unpack
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._paused = False
        self._closing = False
        self._aborted = False
        self._written = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()

    async def carry(self) -> None:
        """Transfer bytes in both directions until either side ends; then close the inner connection.

        :raises RpcError: the call was broken off.
        """
        writing = self._loop.create_task(self._write_on())
        reading = self._loop.create_task(self._read_on())
        reason: Exception | None = None
        try:
            await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.exception() and not self._aborted:
                # No more data will arrive; data that was written is still sent.
                self.close()
                await writing
            for task in (writing, reading):
                if task.done() and (error := task.exception()) is not None:
                    raise error
        except RpcError as e:
            reason = e
            raise
        finally:
            self._closing = True
            writing.cancel()
            reading.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)
            if self._protocol is not None:
                self._protocol.connection_lost(reason)

    async def _write_on(self) -> None:
        while not self._aborted:
            if not self._pieces:
                if self._closing:
                    return
                self._written.clear()
                await self._written.wait()
                continue
            data = b"".join(self._pieces)
            self._pieces.clear()
            for at in range(0, len(data), _CHUNK):
                piece = data[at : at + _CHUNK]
                await self._call.send(self._pack(piece))
                self._sent(len(piece))

    async def _read_on(self) -> None:
        while not self._closing:
            await self._wanted.wait()
            message = await self._call.receive()
            if message is None:
                if self._protocol is not None:
                    self._protocol.eof_received()
                return
            data = self._unpack(message)
            if data and self._protocol is not None and not self._closing:
                self._protocol.data_received(data)

    def _sent(self, size: int) -> None:
        self._size -= size
        if self._paused and self._size <= self._low and self._protocol is not None:
            self._paused = False
            self._protocol.resume_writing()

    # The transport methods that asyncio's protocols use.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        self._pieces.append(bytes(data))
        self._size += len(data)
        self._written.set()
        if self._size > self._high and not self._paused and self._protocol is not None:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def is_reading(self) -> bool:
        return self._wanted.is_set()

    def pause_reading(self) -> None:
        self._wanted.clear()

    def resume_reading(self) -> None:
        self._wanted.set()

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Written data is still sent."""
        self._closing = True
        self._written.set()

    def abort(self) -> None:
        self._aborted = True
        self._pieces.clear()
        self.close()
