"""One HTTP/2 connection over an asyncio transport, as client or server.

transport -> data_received -> Splitter -> DATA  ----------------> Stream (our windows)
                                       -> GOAWAY ---------------> here
                                       -> all other frames -> h2 -> events -> Stream
Stream -> h2 (its windows, its frames) -> one write a turn of the loop -> transport
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from h2 import events
from h2.exceptions import NoAvailableStreamIDError, ProtocolError, StreamClosedError

from wherry.rpc import frames
from wherry.rpc.frames import ConnectionFault, Splitter
from wherry.rpc.limits import FIRST_WINDOW, ByteBudget, ConnectionLimits
from wherry.rpc.machine import machine
from wherry.rpc.metadata import Headers
from wherry.rpc.status import Code, RpcError, of_reset
from wherry.rpc.streams import Stream

log = logging.getLogger(__name__)

# The connection's own window is kept large, so that only the streams' windows limit the peer.
_WINDOW = 1 << 30
# Bytes that are collected before a write, and bytes that the transport may buffer before senders wait.
_GATHER = 256 << 10
_HIGH_WATER = 512 << 10

# Seconds that a peer has to read the last data before the connection is closed.
_LINGER = 5.0

# Frames without payload, which count towards a flood. WINDOW_UPDATE frames that answer our DATA do not count.
_QUIET = {frames.PRIORITY, frames.RST_STREAM, frames.SETTINGS, frames.PING, frames.WINDOW_UPDATE}
_KNOWN = _QUIET | {frames.HEADERS, frames.CONTINUATION}
_EARNED = 4

# The peer may announce any size for its header table; our encoder's table would grow to the same size.
_HEADER_TABLE = 64 << 10


class _Calm:
    """Counts frames without payload. It allows a burst, and a rate per second in the long run."""

    def __init__(self, burst: int, rate: float, now: Callable[[], float]) -> None:
        self._burst, self._rate, self._now = float(burst), rate, now
        self._left, self._since = float(burst), now()

    def spend(self) -> None:
        """:raises ConnectionFault: too many."""
        if self._left < 1:
            now = self._now()
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
            if self._left < 1:
                raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
        self._left -= 1

    def earn(self, frames_: int) -> None:
        self._left = min(self._burst, self._left + frames_)


class Connection(asyncio.Protocol):
    """Use it as a listener's protocol, or :meth:`adopt` an existing transport.

    :param accept: called with every stream that the peer opens, after its headers: the server's role. Without
        it the connection has the client's role and opens streams.
    """

    def __init__(
        self, accept: Callable[[Stream], None] | None = None, limits: ConnectionLimits | None = None
    ) -> None:
        self._accept = accept
        self.limits = limits or ConnectionLimits()
        self.windows = ByteBudget(self.limits.windows)
        self.assembling = ByteBudget(self.limits.assembling)
        self.stream_window = self.limits.stream_window
        self.streams: dict[int, Stream] = {}
        self._loop = asyncio.get_running_loop()
        self._h2 = machine(client_side=accept is None, limits=self.limits)
        self._splitter = Splitter(self, self.limits.headers + 1024)
        self._calm = _Calm(self.limits.idle_frames, self.limits.idle_rate, self._loop.time)
        self._preface = b"" if accept is None else frames.PREFACE
        self._transport: asyncio.Transport | None = None
        self._window = FIRST_WINDOW
        self._paused = False
        self._gathered = 0
        self._flushing = False
        self._wake_all = False
        self._out: list[bytes] = []
        self._refusal: RpcError | None = None
        self._last_accepted: int | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self._linger: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[None] = self._loop.create_future()

    def adopt(self, transport: asyncio.Transport, early: bytes = b"") -> None:
        """Take over a transport, and the bytes that its previous owner has read from it."""
        transport.set_protocol(self)
        self.connection_made(transport)
        if early:
            self.data_received(early)
        transport.resume_reading()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._h2.initiate_connection()
        self._out.append(self._h2.data_to_send())
        self._grant_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            if self._preface:
                data = self._read_preface(data)
            self._splitter.feed(data)
        except ConnectionFault as e:
            self._break(e.code, e.reason)
        except ProtocolError as e:
            self._break(int(e.error_code), str(e) or e.__class__.__name__)
        else:
            if self._wake_all:
                self._wake_all = False
                self._wake_writers()
            self._flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection was lost: {exc}" if exc else "the connection was closed"
        self._end(self._refusal or RpcError(Code.UNAVAILABLE, reason))
        if self._linger is not None:
            self._linger.cancel()
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake_writers()

    # For the owner of the connection.

    @property
    def closing(self) -> bool:
        """Whether no new stream can be opened."""
        return self._refusal is not None or self._transport is None or self._transport.is_closing()

    def peer(self, name: str, default: Any = None) -> Any:
        """The transport's ``get_extra_info``."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    async def ping(self) -> None:
        """Wait until the peer has answered. :raises RpcError: the connection is gone."""
        if self.closing:
            raise self._refusal or RpcError(Code.UNAVAILABLE, "the connection is closed")
        mark = id(waiter := self._loop.create_future()).to_bytes(8, "big")
        self._pings[mark] = waiter
        try:
            self._h2.ping(mark)
            self._flush_soon()
            await waiter
        finally:
            self._pings.pop(mark, None)

    def finish(self) -> None:
        """Accept no more streams; close the connection when the last open one ends."""
        if self._transport is None:
            self._end(RpcError(Code.UNAVAILABLE, "the connection was closed"))
        if self._transport is None or self._refusal is not None:
            return
        self._refusal = RpcError(Code.UNAVAILABLE, "the connection is being closed")
        self._last_accepted = self._h2.highest_inbound_stream_id
        self._out.append(self._h2.data_to_send())
        self._out.append(frames.goaway(self._last_accepted, frames.NO_ERROR, ""))
        self._flush()
        self._close_if_done()

    def close(self) -> None:
        """Close it now, with all streams. Written data is still sent if the peer reads it soon."""
        self._flush()
        self._break(frames.NO_ERROR, "the connection was closed")

    async def open(self, headers: Headers, end: bool = False) -> Stream:
        """Open a stream; waits until the peer allows another one.

        :raises RpcError: the connection accepts no more streams, or is closed.
        """
        while not self.closing and len(self.streams) >= self._h2.remote_settings.max_concurrent_streams:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
        if self.closing:
            raise self._refusal or RpcError(Code.UNAVAILABLE, "the connection is closed")
        try:
            stream = Stream(self, self._h2.get_next_available_stream_id(), ours=True)
        except NoAvailableStreamIDError as e:
            raise RpcError(Code.UNAVAILABLE, "the connection has carried as many calls as it can") from e
        self.streams[stream.id] = stream
        self.send_headers(stream, headers, end)
        return stream

    # Wire: called by streams.

    def send_headers(self, stream: Stream, headers: Headers, end: bool) -> None:
        try:
            self._h2.send_headers(stream.id, headers, end_stream=end)
        except StreamClosedError as e:
            raise RpcError(Code.CANCELLED, "the call is over") from e
        if end:
            stream.sent_all = True
            self._forget_if_over(stream)
        self._flush_soon()

    def send_data(self, stream: Stream, data: memoryview, end: bool) -> int:
        sent, size = 0, len(data)
        while not self._paused:
            room = min(
                self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size, _GATHER
            )
            part = min(size - sent, max(0, room))
            last = end and sent + part == size
            if not part and not last:
                break
            self._h2.send_data(stream.id, data[sent : sent + part], end_stream=last)
            sent += part
            self._gathered += part
            self._calm.earn(_EARNED)
            if self._gathered >= _GATHER:
                self._flush()
            if last:
                stream.sent_all = True
                self._forget_if_over(stream)
            if sent == size:
                break
        if sent or stream.sent_all:
            self._flush_soon()
        return sent

    def grant(self, stream: Stream, size: int) -> None:
        if stream.id in self.streams:
            self._out.append(frames.window_update(stream.id, size))
            self._flush_soon()

    def reset(self, stream: Stream, code: int, error: RpcError) -> None:
        try:
            self._h2.reset_stream(stream.id, error_code=code)
        except ProtocolError:
            pass  # h2 has removed the stream, or the connection has ended.
        self._drop(stream, error)
        self._flush_soon()

    def header_room(self) -> int:
        return self._h2.remote_settings.max_header_list_size or self.limits.headers

    # FrameSink: called by the splitter.

    def take_data(self, stream_id: int, data: bytes, padding: int, end: bool) -> None:
        size = len(data) + padding
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._window < _WINDOW >> 1:
            self._grant_connection()
        stream = self.streams.get(stream_id)
        if not data and not end:
            self._calm.spend()
        if stream is None or stream.received_all:
            self._stray(stream_id)
            return
        stream.allowance -= size
        if stream.allowance < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the stream's window")
        if data:
            stream.take_data(data)
        if padding:
            stream.credit(padding)
        if end:
            self._through_h2(frames.data_head(stream_id, 0, end=True))

    def take_frame(self, kind: int, flags: int, stream_id: int, frame: bytes) -> None:
        quiet = kind in _QUIET and not (kind in (frames.PING, frames.SETTINGS) and flags & frames.ACK)
        if quiet or kind not in _KNOWN:
            self._calm.spend()
        if kind == frames.GOAWAY:
            self._take_goaway(frame)
        elif kind in _KNOWN:
            self._through_h2(frame)
        elif kind == 5:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a PUSH_PROMISE")

    def _read_preface(self, data: bytes) -> bytes:
        expected = self._preface[: len(data)]
        if data[: len(expected)] != expected:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "this is not HTTP/2")
        self._h2.receive_data(expected)
        self._preface = self._preface[len(expected) :]
        return data[len(expected) :]

    def _stray(self, stream_id: int) -> None:
        """DATA for a stream that has ended: it was on its way when we reset the stream."""
        opened = (
            self._h2.highest_outbound_stream_id
            if self._accept is None
            else self._h2.highest_inbound_stream_id
        )
        if stream_id > opened or (stream_id % 2 == 0):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "DATA for a stream that was never opened")

    def _take_goaway(self, frame: bytes) -> None:
        last, code, text = frames.read_goaway(frame)
        reason = f"the other side closes the connection (HTTP/2 error {code}{': ' if text else ''}{text})"
        if self._refusal is None:
            kind = Code.RESOURCE_EXHAUSTED if code == frames.ENHANCE_YOUR_CALM else Code.UNAVAILABLE
            self._refusal = RpcError(kind, reason)
        for stream in [s for s in self.streams.values() if s.id > last and self._accept is None]:
            self._drop(stream, RpcError(Code.UNAVAILABLE, reason))
        self._wake_waiting()
        self._close_if_done()

    # h2's events.

    def _through_h2(self, frame: bytes) -> None:
        for event in self._h2.receive_data(frame):
            handler = self._EVENTS.get(type(event))
            if handler is not None:
                handler(self, event)

    def _on_request(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert self._accept is not None
        if self._last_accepted is not None and stream_id > self._last_accepted:
            self._h2.reset_stream(stream_id, frames.REFUSED_STREAM)
            return
        stream = Stream(self, stream_id, ours=False)
        stream.take_headers(_pairs(event), trailing=False)
        self.streams[stream_id] = stream
        self._accept(stream)

    def _on_response(self, event: events.ResponseReceived) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.take_headers(_pairs(event), trailing=False)

    def _on_trailers(self, event: events.TrailersReceived) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.take_headers(_pairs(event), trailing=True)

    def _on_stream_ended(self, event: events.StreamEnded) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.take_end()
            self._forget_if_over(stream)

    def _on_reset(self, event: events.StreamReset) -> None:
        if stream := self.streams.get(event.stream_id):
            self._drop(stream, of_reset(int(event.error_code or 0)))

    def _on_windows(self, event: events.WindowUpdated) -> None:
        if not event.stream_id:
            self._wake_all = True
        elif stream := self.streams.get(event.stream_id):
            stream.wake_writers()

    def _on_settings(self, _event: events.RemoteSettingsChanged) -> None:
        self._wake_all = True
        self._wake_waiting()
        if self._h2.encoder.header_table_size > _HEADER_TABLE:
            self._h2.encoder.header_table_size = _HEADER_TABLE

    def _on_pong(self, event: events.PingAckReceived) -> None:
        waiter = self._pings.get(event.ping_data or b"")
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    _EVENTS: dict[type[events.Event], Callable[[Connection, Any], None]] = {
        events.RequestReceived: _on_request,
        events.ResponseReceived: _on_response,
        events.TrailersReceived: _on_trailers,
        events.StreamEnded: _on_stream_ended,
        events.StreamReset: _on_reset,
        events.WindowUpdated: _on_windows,
        events.RemoteSettingsChanged: _on_settings,
        events.PingAckReceived: _on_pong,
    }

    # Housekeeping.

    def _grant_connection(self) -> None:
        self._out.append(self._h2.data_to_send())
        self._out.append(frames.window_update(0, _WINDOW - self._window))
        self._window = _WINDOW

    def _flush_soon(self) -> None:
        """Write at the end of this turn of the loop, together with all other data of the turn."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._gathered = 0
        data = self._h2.data_to_send()
        if self._out:
            # Window updates and similar frames; their order relative to h2's frames does not matter.
            data = b"".join([*self._out, data])
            self._out.clear()
        transport = self._transport
        if not data or transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > self.limits.unsent:
            log.info("a gRPC connection ends: the other side does not read")
            transport.abort()

    def _break(self, code: int, reason: str) -> None:
        """End the connection with a GOAWAY that says why."""
        if code != frames.NO_ERROR:
            log.info("a gRPC connection ends: %s", reason)
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._out.append(frames.goaway(self._h2.highest_inbound_stream_id, code, reason))
            transport.write(b"".join(self._out))
            self._close_transport()
        self._end(RpcError(Code.UNAVAILABLE if code == frames.NO_ERROR else Code.INTERNAL, reason))

    def _end(self, error: RpcError) -> None:
        self._refusal = error
        if self._transport is None and not self._lost.done():
            self._lost.set_result(None)
        for stream in list(self.streams.values()):
            self._drop(stream, error)
        for waiter in self._pings.values():
            if not waiter.done():
                waiter.set_exception(error)
        self._wake_waiting()

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.received_all and stream.sent_all:
            self._forget(stream)

    def _drop(self, stream: Stream, error: RpcError) -> None:
        if stream.ours and stream.received_all:
            # The answer is complete. A server that does not need the rest of a request resets the stream like
            # this (RFC 9113 section 8.1); a server that closes the connection has answered as well.
            stream.sent_all = True
            stream.wake_writers()
        else:
            stream.fail(error)
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is not None:
            stream.retire()
            self._wake_waiting()
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._refusal is not None and not self.streams and self._transport is not None:
            self._loop.call_soon(self._close_quietly)

    def _close_quietly(self) -> None:
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            self._close_transport()

    def _close_transport(self) -> None:
        assert self._transport is not None
        self._transport.close()
        self._linger = self._loop.call_later(_LINGER, self._transport.abort)

    def _wake_writers(self) -> None:
        for stream in list(self.streams.values()):
            stream.wake_writers()

    def _wake_waiting(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


def _pairs(event: events.RequestReceived | events.ResponseReceived | events.TrailersReceived) -> Headers:
    return list(cast(Headers, event.headers or []))
