"""The client's role: calls over one connection."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Generic, TypeVar

from wherry.rpc import status
from wherry.rpc.connection import Connection
from wherry.rpc.frames import CANCEL, NO_ERROR
from wherry.rpc.limits import ConnectionLimits
from wherry.rpc.messages import ACCEPTED, Messages
from wherry.rpc.metadata import Headers, Metadata, encode_timeout
from wherry.rpc.methods import Message, Method, Unary
from wherry.rpc.status import Code, RpcError
from wherry.rpc.streams import Stream

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class Client:
    """Calls methods over a connection, any number of them at once."""

    def __init__(self, connection: Connection, authority: str = "localhost") -> None:
        self.connection = connection
        self._authority = authority.encode()

    @classmethod
    def over(
        cls,
        transport: asyncio.Transport,
        early: bytes = b"",
        *,
        authority: str = "localhost",
        limits: ConnectionLimits | None = None,
    ) -> Client:
        """Make a client on an existing transport."""
        connection = Connection(limits=limits)
        connection.adopt(transport, early)
        return cls(connection, authority)

    async def unary(
        self, method: Unary[Q, A], request: Q, metadata: Metadata | None = None, timeout: float | None = None
    ) -> A:
        """One request, one response. ``timeout`` is in seconds.

        :raises RpcError: the server answered with an error, or the connection failed.
        """
        async with self.stream(method, metadata, timeout) as call:
            await call.send(request, end=True)
            return await call.response()

    def stream(
        self, method: Method[Q, A], metadata: Metadata | None = None, timeout: float | None = None
    ) -> ClientCall[Q, A]:
        """A call of any kind, as a context manager. If the call is not complete at the end,
        it is cancelled."""
        headers: Headers = [
            (b":method", b"POST"),
            (b":scheme", b"https" if self.connection.peer("ssl_object") else b"http"),
            (b":path", method.path.encode()),
            (b":authority", self._authority),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-accept-encoding", ACCEPTED),
        ]
        if timeout is not None:
            headers.append((b"grpc-timeout", encode_timeout(timeout)))
        return ClientCall(
            self.connection, method, headers + (metadata.encoded() if metadata else []), timeout
        )

    async def close(self) -> None:
        """Accept no more calls, and close the connection when the last one ends."""
        self.connection.finish()
        await self.connection.wait_closed()


class ClientCall(Messages[Q, A], Generic[Q, A]):
    """A running call. Every wait in it ends with an RpcError if the server ends the call with a status other
    than OK, the deadline passes, or the connection is lost."""

    _stream: Stream

    def __init__(
        self, connection: Connection, method: Method[Q, A], headers: Headers, timeout: float | None
    ) -> None:
        self._connection = connection
        self._method = method
        self._request_headers = headers
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._known = False

    async def __aenter__(self) -> ClientCall[Q, A]:
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                stream = await self._connection.open(self._request_headers)
        except TimeoutError as e:
            raise _out_of_time() from e
        super().__init__(stream, self._method.response, self._connection.limits.message)
        if deadline is not None:
            self._timer = loop.call_at(deadline, self._expire)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stream.reset(NO_ERROR if self._stream.received_all else CANCEL)

    async def send(self, message: Q, end: bool = False) -> None:
        """Send one request; ``end``: it is the last one.

        A server may end a call before it has all requests. Later requests are dropped; :meth:`receive`
        reports how the call ended.
        """
        if not self._stream.received_all:
            await super().send(message, end)

    async def end(self) -> None:
        """Tell the server that there are no more requests."""
        if not (self._stream.sent_all or self._stream.received_all):
            await self._stream.send(b"", end=True)

    async def headers(self) -> Metadata:
        """The metadata that the server sent before its first message."""
        await self._begin()
        return Metadata.received(self._stream.headers or [])

    def trailers(self) -> Metadata:
        """The metadata that the server sent with its status; known after the last message."""
        return Metadata.received(self._stream.trailers or self._stream.headers or [])

    async def receive(self) -> A | None:
        """The next response; None after the last one, if the call succeeded.

        :raises RpcError: the call failed.
        """
        await self._begin()
        message = await super().receive()
        if message is None:
            self._raise_status()
        return message

    async def response(self) -> A:
        """The response of a method with exactly one."""
        response = await self.receive()
        if response is None:
            raise RpcError(Code.INTERNAL, "the server sent no response")
        if await self.receive() is not None:
            raise RpcError(Code.INTERNAL, "the server sent more than one response")
        return response

    async def _begin(self) -> None:
        """Wait for the response's headers and check that they are gRPC's."""
        if self._known:
            return
        headers = await self._stream.response()
        found = dict(headers)
        if b"grpc-status" not in found:
            http = found.get(b":status", b"")
            if http != b"200":
                raise status.of_http(int(http) if http.isdigit() else 0)
            kind = found.get(b"content-type", b"")
            if not kind.startswith(b"application/grpc"):
                raise RpcError(
                    Code.UNKNOWN, f"the server's answer is not gRPC but {kind[:80].decode('latin-1')!r}"
                )
            if found.get(b"content-length", b"0") != b"0":
                raise RpcError(Code.INTERNAL, "an answer to a call must not have content-length")
        self.expect(headers)
        self._known = True

    def _raise_status(self) -> None:
        error = status.decode(self._stream.trailers or self._stream.headers or [])
        if error is not None:
            raise error

    def _expire(self) -> None:
        if not self._stream.received_all:
            self._stream.reset(CANCEL, _out_of_time())


def _out_of_time() -> RpcError:
    return RpcError(Code.DEADLINE_EXCEEDED, "the call's time is up")
