"""Our terminal or pipes on one side, a hijacked stream on the other, until the other side ends.

One thread and one ``poll``: stdin to the stream (half-closed at stdin's end), the stream to stdout and
stderr, signals as they come. Sending never blocks while output waits, so neither side can wedge the other.
"""

from __future__ import annotations

import os
import select

from wherry.client.files import write_all
from wherry.client.http import READ_SIZE, ConnectionLost
from wherry.client.streams import Demultiplexer, Raw
from wherry.client.transport import SHUT_WR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.terminal.detach import Watch
    from wherry.cli.terminal.signals import SignalPipe
    from wherry.client.api import Hijacked

STDIN_READ_SIZE = 64 << 10


def output(tty: bool, *, stdout: bool = True, stderr: bool = True) -> Raw | Demultiplexer:
    """Where a container's output goes: raw from a terminal, sorted by frames without one."""

    def to_stdout(piece: memoryview) -> None:
        write_all(1, piece)

    def to_stderr(piece: memoryview) -> None:
        write_all(2, piece)

    def away(piece: memoryview) -> None:
        return None

    if tty:
        return Raw(to_stdout if stdout else away)
    return Demultiplexer(to_stdout if stdout else away, to_stderr if stderr else away)


class Interaction:
    """One interaction. ``stdin`` is a descriptor to read from, or None to send nothing; ``watch`` looks for
    the detach keys in it."""

    def __init__(
        self,
        connection: Hijacked,
        sink: Raw | Demultiplexer,
        *,
        stdin: int | None,
        watch: Watch | None = None,
        signals: SignalPipe | None = None,
        on_signal: Callable[[int], None] | None = None,
    ) -> None:
        self._stream = connection.stream
        self._early = connection.early
        self._sink = sink
        self._stdin = stdin
        self._watch = watch
        self.detached = False
        """Whether the detach keys ended the session."""
        self._signals, self._on_signal = signals, on_signal
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._pending = memoryview(b"")
        self._half_closed = False
        self._watching = False
        self._poll = select.poll()

    def run(self) -> None:
        """Copy until the daemon closes the stream, or the detach keys are typed.

        :raises ConnectionLost: the stream broke.
        :raises BrokenPipeError: nobody reads our output any more.
        """
        self._stream.setblocking(False)
        self._poll.register(self._stream.fileno(), select.POLLIN)
        self._watch_stdin(True)
        if self._signals is not None:
            self._poll.register(self._signals.fileno(), select.POLLIN)
        if self._early:
            self._sink.feed(self._early)
        if getattr(self._stream, "pending", int)() and not self._exchange(select.POLLIN):
            return
        while self._step():
            pass

    def _step(self) -> bool:
        for descriptor, events in self._poll.poll():
            if self._signals is not None and descriptor == self._signals.fileno():
                for number in self._signals.read():
                    if self._on_signal is not None:
                        self._on_signal(number)
            elif descriptor == self._stdin:
                self._take_stdin()
            elif not self._exchange(events):
                return False
            if self.detached:
                return False
        return True

    def _exchange(self, events: int) -> bool:
        if events & select.POLLOUT:
            self._flush()
        if not events & ~select.POLLOUT:
            return True
        while True:
            try:
                size = self._stream.recv_into(self._buffer)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            except OSError as e:
                raise ConnectionLost(f"cannot read the container's output: {e.strerror}") from e
            if not size:
                return False
            self._sink.feed(self._buffer[:size])
            if size < READ_SIZE // 4 and not getattr(self._stream, "pending", int)():
                return True

    def _take_stdin(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, STDIN_READ_SIZE)
        except OSError:
            data = b""
        ended = not data
        if self._watch is not None:
            data, self.detached = self._watch.feed(data)
        if data:
            self._pending = memoryview(data)
            self._flush()
        if ended:
            self._watch_stdin(False)
            self._stdin = None
            self._half_close()

    def _flush(self) -> None:
        """Send what waits. While something does, stdin is not watched at all: a mask would not keep its
        hang-up from waking the loop."""
        try:
            while self._pending:
                self._pending = self._pending[self._stream.send(self._pending) :]
            getattr(self._stream, "flush", bool)()
        except BlockingIOError:
            self._watch_stdin(False)
            self._poll.modify(self._stream.fileno(), select.POLLIN | select.POLLOUT)
            return
        except OSError:
            self._pending = memoryview(b"")
            self._watch_stdin(False)
            self._stdin = None
        self._poll.modify(self._stream.fileno(), select.POLLIN)
        self._watch_stdin(True)

    def _watch_stdin(self, wanted: bool) -> None:
        if self._stdin is None or wanted == self._watching:
            return
        self._watching = wanted
        if wanted:
            self._poll.register(self._stdin, select.POLLIN)
        else:
            self._poll.unregister(self._stdin)

    def _half_close(self) -> None:
        if not self._half_closed:
            self._half_closed = True
            try:
                self._stream.shutdown(SHUT_WR)
            except OSError:
                pass
