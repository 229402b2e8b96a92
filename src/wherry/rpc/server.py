"""The server's role: a table of methods and handlers, for any number of connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from wherry.errors import WherryError
from wherry.rpc import status
from wherry.rpc.connection import Connection
from wherry.rpc.frames import NO_ERROR, REFUSED_STREAM
from wherry.rpc.limits import ConnectionLimits
from wherry.rpc.messages import ACCEPTED, Messages
from wherry.rpc.metadata import Headers, Metadata, decode_timeout
from wherry.rpc.methods import AnyMethod, BothStream, ClientStream, Message, Method, ServerStream, Unary
from wherry.rpc.status import Code, RpcError
from wherry.rpc.streams import Stream

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_HEADERS: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ACCEPTED),
]


class ServerCall(Messages[A, Q], Generic[Q, A]):
    """A call that is being answered: read messages by :meth:`receive` or ``async for``, send them by
    :meth:`send`.

    If the client cancels or disconnects, or the deadline passes, the handler's task is cancelled.
    """

    def __init__(self, stream: Stream, method: Method[Q, A], connection: Connection) -> None:
        super().__init__(stream, method.request, connection.limits.message)
        self.method = method
        self.connection = connection
        """Its :meth:`~Connection.peer` describes the client."""
        self.metadata = Metadata()
        """The metadata that the client sent."""
        self.deadline: float | None = None
        """The deadline in seconds of the loop's clock."""
        self.expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._answered = False
        self._trailers: Headers = []

    def begin(self) -> None:
        """Read the client's headers. :raises WherryError: they are malformed."""
        headers = self._stream.headers or []
        self.metadata = Metadata.received(headers)
        self.expect(headers)
        timeout = dict(headers).get(b"grpc-timeout")
        if timeout is not None:
            loop = asyncio.get_running_loop()
            self.deadline = loop.time() + decode_timeout(timeout)
            self._timer = loop.call_at(self.deadline, self._expire)

    def run_by(self, task: asyncio.Task[None]) -> None:
        """The task to cancel if the call ends early."""
        self._task = task
        self._stream.on_failure = task.cancel

    def _expire(self) -> None:
        if self._stream.on_failure is not None and self._task is not None:
            self.expired = True
            self._stream.on_failure = None  # Cancel only once: a second time would interrupt the clean-up.
            self._task.cancel()

    @property
    def over(self) -> bool:
        """Whether the client has gone, or the deadline has passed."""
        return self._stream.error is not None

    def send_headers(self, metadata: Metadata | None = None) -> None:
        """Send the headers now instead of with the first message; they are sent only once."""
        if self._answered:
            raise RuntimeError("the headers of this call have been sent")
        self._answered = True
        self._stream.send_headers(_HEADERS + (metadata.encoded() if metadata else []))

    def set_trailers(self, metadata: Metadata) -> None:
        """Set the metadata that is sent with the status."""
        self._trailers = metadata.encoded()

    async def send(self, message: A, end: bool = False) -> None:
        """Send one response. ``end`` is ignored: the call ends when the handler returns."""
        if not self._answered:
            self.send_headers()
        await super().send(message)

    def finish(self, error: RpcError | None) -> None:
        """End the call."""
        stream = self._stream
        stream.on_failure = None
        if self._timer is not None:
            self._timer.cancel()
        if stream.closed:
            return
        taken = sum(len(name) + len(value) + 32 for name, value in self._trailers) + 160
        trailers = status.encode(error, stream.header_room - taken) + self._trailers
        stream.send_headers(trailers if self._answered else [*_HEADERS[:2], *trailers], end=True)
        if not stream.received_all:
            stream.reset(NO_ERROR)  # The client need not send the rest of the request.


Handler = Callable[[ServerCall[Any, Any]], Awaitable[None]]
Route = tuple[AnyMethod, Handler]


@overload
def on(method: Unary[Q, A], handler: Callable[[Q, ServerCall[Q, A]], Awaitable[A]]) -> Route: ...
@overload
def on(method: ServerStream[Q, A], handler: Callable[[Q, ServerCall[Q, A]], Awaitable[None]]) -> Route: ...
@overload
def on(method: ClientStream[Q, A], handler: Callable[[ServerCall[Q, A]], Awaitable[A]]) -> Route: ...
@overload
def on(method: BothStream[Q, A], handler: Callable[[ServerCall[Q, A]], Awaitable[None]]) -> Route: ...


def on(method: AnyMethod, handler: Callable[..., Awaitable[Any]]) -> Route:
    """A method with its handler, for :class:`Server`.

    A handler receives the request (unless the client streams requests) and the call. It returns the response,
    or streams responses by ``call.send``.
    """
    streams_in = isinstance(method, ClientStream | BothStream)
    streams_out = isinstance(method, ServerStream | BothStream)

    async def answer(call: ServerCall[Any, Any]) -> None:
        response = await (handler(call) if streams_in else handler(await _only_request(call), call))
        if not streams_out:
            await call.send(response)

    return method, answer


async def _only_request(call: ServerCall[Any, Any]) -> Any:
    request = await call.receive()
    if request is None:
        raise RpcError(Code.INTERNAL, "the call brought no request")
    if await call.receive() is not None:
        raise RpcError(Code.INTERNAL, "the call brought more than one request")
    return request


class Server:
    """Answers calls. Pass it connections by :meth:`serve`, or use :meth:`protocol` in a listener."""

    def __init__(self, routes: Iterable[Route], limits: ConnectionLimits | None = None) -> None:
        self._routes = {method.path.encode(): (method, handler) for method, handler in routes}
        self._limits = limits or ConnectionLimits()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, transport: asyncio.Transport, early: bytes = b"") -> Connection:
        """Answer calls on an existing transport; ``early`` are bytes that were read from it already."""
        connection = self.protocol()
        connection.adopt(transport, early)
        return connection

    def protocol(self) -> Connection:
        """A connection without a transport yet, for ``loop.create_unix_server``."""
        connection = _Served(self._accept, self._connections.discard, self._limits)
        self._connections.add(connection)
        return connection

    async def close(self, grace: float = 5.0) -> None:
        """Accept no more calls, wait ``grace`` seconds for running ones, then cancel them."""
        closed = [asyncio.ensure_future(connection.wait_closed()) for connection in self._connections]
        for connection in list(self._connections):
            connection.finish()
        if closed:
            await asyncio.wait(closed, timeout=grace)
        for connection in list(self._connections):
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in closed:
            waiting.cancel()
        # Connections end by themselves now, except one whose transport is not running: do not wait for it.
        await asyncio.gather(*closed, return_exceptions=True)

    def _accept(self, connection: _Served, stream: Stream) -> None:
        if connection.running >= 2 * self._limits.streams:
            # Cancelled calls that are still cleaning up; at most as many as the limit of calls.
            stream.reset(REFUSED_STREAM)
            return
        headers = dict(stream.headers or [])
        if headers.get(b":method") != b"POST":
            _refuse_http(stream, b"405")
            return
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            _refuse_http(stream, b"415")
            return
        if headers.get(b"content-length") is not None:
            # gRPC does not use it, and h2 would compare it with bytes that it does not see.
            _refuse(stream, RpcError(Code.INTERNAL, "a call must not have content-length"))
            return
        found = self._routes.get(headers.get(b":path", b""))
        if found is None:
            _refuse(stream, RpcError(Code.UNIMPLEMENTED, self._unknown(headers.get(b":path", b""))))
            return
        method, handler = found
        call = ServerCall[Any, Any](stream, method, connection)
        task = asyncio.get_running_loop().create_task(_answer(call, handler), name=method.path)
        call.run_by(task)
        connection.running += 1
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(connection, done))

    def _done(self, connection: _Served, task: asyncio.Task[None]) -> None:
        connection.running -= 1
        self._tasks.discard(task)

    def _unknown(self, path: bytes) -> str:
        service, _, name = path[1:200].decode("latin-1").rpartition("/")
        if any(known.startswith(b"/%s/" % service.encode("latin-1")) for known in self._routes):
            return f"unknown method {name} for service {service}"
        return f"unknown service {service}"


class _Served(Connection):
    """A connection that its server knows."""

    def __init__(
        self,
        accept: Callable[[_Served, Stream], None],
        gone: Callable[[Connection], None],
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(lambda stream: accept(self, stream), limits)
        self._gone = gone
        self.running = 0
        """The number of running handlers."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone(self)


async def _answer(call: ServerCall[Any, Any], handler: Handler) -> None:
    """The task of one call: every outcome of the handler becomes a status."""
    error: RpcError | None = None
    try:
        call.begin()
        await handler(call)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if call.expired:
            error = RpcError(Code.DEADLINE_EXCEEDED, "the call's time is up")
        elif task is not None and task.cancelling():
            call.finish(RpcError(Code.CANCELLED, "the call was cancelled"))
            raise
        else:
            error = RpcError(Code.CANCELLED, "what the call waited for was cancelled")
    except WherryError as e:
        error = status.told(e)
        if error.code in (Code.INTERNAL, Code.UNKNOWN) and not call.over:
            level = logging.INFO if error.expected else logging.ERROR
            log.log(level, "%s: %s", call.method.path, error.message)
    except Exception as e:
        log.exception("%s failed", call.method.path)
        error = RpcError(Code.INTERNAL, f"internal error: {e.__class__.__name__}: {e}")
    call.finish(error)


def _refuse(stream: Stream, error: RpcError) -> None:
    stream.send_headers([*_HEADERS[:2], *status.encode(error, stream.header_room)], end=True)
    stream.reset(NO_ERROR)


def _refuse_http(stream: Stream, code: bytes) -> None:
    stream.send_headers([(b":status", code), (b"content-type", b"text/plain")], end=True)
    stream.reset(NO_ERROR)
