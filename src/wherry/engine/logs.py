"""Container logs for readers: what was printed, and what still comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry.engine.live import LiveSet
from wherry.engine.logfacts import attributes_of
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument
from wherry.logs import options as log_options
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Consumer, Keeper
from wherry.logs.reader import Reader
from wherry.logs.records import Record, Selection, stamp
from wherry.state.containers import ContainerRow, Containers

_HEADER = struct.Struct(">BxxxL")
_FRAME_MAX = 16 << 10
"""Bytes of a line after which it is sent though its end has not come, as Docker does."""


@dataclass(frozen=True)
class LogOptions:
    """What to show. Times in nanoseconds since the epoch; ``tail`` in lines, ``None`` for all.

    ``framed``: Docker's 8-byte headers. ``details``: the container's attributes before each line.
    """

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None
    tail: int | None = None
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    framed: bool = True

    @property
    def selection(self) -> Selection:
        return Selection(
            stdout=self.stdout,
            stderr=self.stderr,
            since=None if self.since is None else stamp(max(self.since, 0)),
            until=None if self.until is None else stamp(max(self.until, 0)),
            tail=self.tail,
        )


class LogService:
    def __init__(self, *, settings: Settings, containers: Containers, live: LiveSet, keeper: Keeper) -> None:
        self._settings = settings
        self._containers = containers
        self._live = live
        self._keeper = keeper

    def check(self, wanted: str, options: LogOptions) -> ContainerRow:
        """:raises NotFound: no such container. :raises InvalidArgument: it keeps no log, or no stream."""
        row = self._containers.find(wanted)
        if not options.stdout and not options.stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if not self.is_readable(row):
            raise InvalidArgument("configured logging driver does not support reading")
        return row

    @staticmethod
    def is_readable(row: ContainerRow) -> bool:
        return log_options.is_readable(row.record.host_config.log_config)

    async def stream(self, row: ContainerRow, options: LogOptions) -> AsyncIterator[bytes]:
        """The log as bytes to send. With ``follow`` it ends when the container stops (or is removed)."""
        path = self._settings.log_path(row.id)
        live = self._live.get(row.id)
        follows = options.follow and live.task is not None
        # What is being read stays, also when it is rotated away meanwhile.
        consumer = self._keeper.consume(row.id, path)
        cancel = live.on_exit(consumer.end) if follows else None
        encoder = _Encoder(options, self._details(row) if options.details else b"")
        reader: Reader | None = None
        try:
            # Without follow it ends where the log ended when it was asked for.
            reader = await asyncio.to_thread(
                lambda: Reader(LogFiles(path), options.selection, bounded=not follows)
            )
            while True:
                data = await _next(reader, consumer, encoder, follows=follows)
                if not data:
                    return
                yield data
        finally:
            if reader is not None:
                reader.close()
            consumer.close()
            if cancel is not None:
                cancel()

    @staticmethod
    def _details(row: ContainerRow) -> bytes:
        found = attributes_of(row)
        pairs = [f"{quote_plus(k)}={quote_plus(v)}" for k, v in sorted(found.items())]
        return (",".join(pairs) + " ").encode()


async def _next(reader: Reader, consumer: Consumer, encoder: _Encoder, *, follows: bool) -> bytes:
    """The next bytes; empty at the end."""

    def work() -> bytes:
        data = b""
        while not data and (records := reader.read()):
            data = encoder.feed(records)
        return data

    while True:
        # Read once more after the end: the last lines may have come between the two.
        last = not follows or consumer.ended
        data = await asyncio.to_thread(work)
        consumer.advance(reader.number, reader.number)
        if data:
            return data
        if last or reader.finished:
            return encoder.flush()
        consumer.arm()
        data = await asyncio.to_thread(work) or encoder.flush()
        if data:
            return data
        await consumer.changed()


class _Encoder:
    """Records to what clients read: a frame a line.

    conmon ends a record where its read of the pipe ends; such pieces are put together again, so that a line
    has one frame and one time. A piece whose rest has not come waits for :meth:`flush`.
    """

    def __init__(self, options: LogOptions, prefix: bytes) -> None:
        self._framed, self._timestamps, self._prefix = options.framed, options.timestamps, prefix
        self._waiting: dict[bool, bytes] = {}
        self._begun: set[bool] = set()
        """Streams whose line was sent in part, so that its rest gets no time of its own."""

    def feed(self, records: list[Record]) -> bytes:
        pieces: list[bytes] = []
        waiting, begun = self._waiting, self._begun
        framed, timestamps, prefix, pack = self._framed, self._timestamps, self._prefix, _HEADER.pack
        for moment, stderr, data in records:
            if stderr in waiting:
                data = waiting.pop(stderr) + data
            elif stderr in begun:
                begun.discard(stderr)
            else:
                if prefix:
                    data = prefix + data
                if timestamps:
                    data = moment + b" " + data
            if not data.endswith(b"\n"):
                if len(data) < _FRAME_MAX:
                    waiting[stderr] = data
                    continue
                begun.add(stderr)
            if framed:
                pieces.append(pack(2 if stderr else 1, len(data)))
            pieces.append(data)
        return b"".join(pieces)

    def flush(self) -> bytes:
        """What waits for the rest of its line, which does not come for now."""
        out = b""
        for stderr, data in self._waiting.items():
            self._begun.add(stderr)
            out += (_HEADER.pack(2 if stderr else 1, len(data)) if self._framed else b"") + data
        self._waiting.clear()
        return out
