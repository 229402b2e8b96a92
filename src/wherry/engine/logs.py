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
        prefix = self._details(row) if options.details else b""
        reader: Reader | None = None
        try:
            reader = await asyncio.to_thread(Reader, LogFiles(path), options.selection)
            while True:
                data = await _next(reader, consumer, options, prefix, follows=follows)
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


async def _next(
    reader: Reader, consumer: Consumer, options: LogOptions, prefix: bytes, *, follows: bool
) -> bytes:
    """The next bytes; empty at the end."""

    def work() -> bytes:
        return _encode(reader.read(), options, prefix)

    while True:
        # Read once more after the end: the last lines may have come between the two.
        last = not follows or consumer.ended
        data = await asyncio.to_thread(work)
        consumer.needs = consumer.reading = reader.number
        if data or last or reader.finished:
            return data
        consumer.arm()
        data = await asyncio.to_thread(work)
        if data:
            return data
        await consumer.changed()


def _encode(records: list[Record], options: LogOptions, prefix: bytes) -> bytes:
    pieces: list[bytes] = []
    framed, timestamps, pack = options.framed, options.timestamps, _HEADER.pack
    for moment, stderr, data in records:
        if prefix:
            data = prefix + data
        if timestamps:
            data = moment + b" " + data
        if framed:
            pieces.append(pack(2 if stderr else 1, len(data)))
        pieces.append(data)
    return b"".join(pieces)
