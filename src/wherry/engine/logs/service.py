"""Reading container logs: what was printed, and what is still to come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry import threads
from wherry.engine.ground import Ground
from wherry.engine.logs.encoding import Encoder
from wherry.engine.logs.facts import attributes_of
from wherry.errors import InvalidArgument
from wherry.logs import options as log_options
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Consumer, Keeper
from wherry.logs.reader import Reader
from wherry.logs.records import Selection, stamp
from wherry.state.containers import ContainerRow


@dataclass(frozen=True)
class LogOptions:
    """What to show. Times in nanoseconds since the epoch; ``tail`` in lines, ``None`` for all.

    ``framed``: with Docker's 8-byte headers. ``details``: the container's attributes before each line.
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
    def __init__(self, ground: Ground, *, keeper: Keeper) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._live = ground.live
        self._keeper = keeper

    def check(self, wanted: str, options: LogOptions) -> ContainerRow:
        """:raises NotFound: no such container.
        :raises InvalidArgument: it stores no log, or no stream is wanted."""
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
        """The log as bytes to send. With ``follow`` it ends when the container stops or is removed."""
        path = self._settings.log_path(row.id)
        live = self._live.get(row.id)
        follows = options.follow and live.task is not None
        await self._keeper.settled(row.id)
        # Files that are being read are kept, even if they are rotated away meanwhile.
        consumer = self._keeper.consume(row.id, path)
        cancel = live.on_exit(consumer.end) if follows else None
        encoder = Encoder(
            self._details(row) if options.details else b"",
            framed=options.framed,
            timestamps=options.timestamps,
        )
        reader: Reader | None = None
        try:
            # Without follow, reading ends where the log ended at the time of the request.
            reader = await threads.short(
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


async def _next(reader: Reader, consumer: Consumer, encoder: Encoder, *, follows: bool) -> bytes:
    """The next bytes; empty at the end."""

    def work() -> bytes:
        while True:
            if reader.takes_all:
                lines = reader.read_lines()
                said = encoder.skip(reader.skipped) if reader.skipped else b""
                is_end, data = not lines, said + encoder.feed_lines(lines)
            else:
                records = reader.read()
                said = encoder.skip(reader.skipped) if reader.skipped else b""
                is_end, data = not records, said + encoder.feed(records)
            if data or is_end:
                return data

    while True:
        # Read once more after the end: the last lines may have been written between the two steps.
        last = not follows or consumer.ended
        data = await threads.short(work)
        consumer.advance(reader.number, reader.number)
        if data:
            return data
        if last or reader.finished:
            return encoder.flush()
        consumer.arm()
        data = await threads.short(work) or encoder.flush()
        if data:
            return data
        await consumer.changed()
