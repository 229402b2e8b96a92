"""Container logs for readers: what was printed, and what still comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from wherry.engine.live import LiveSet
from wherry.engine.settings import Settings
from wherry.errors import InvalidArgument
from wherry.runtime.logs import Follower, Reader, Record, Selection, stamp
from wherry.state.containers import ContainerRow, Containers

_HEADER = struct.Struct(">BxxxL")


@dataclass(frozen=True)
class LogOptions:
    """What to show. Times in nanoseconds since the epoch; ``tail`` in lines, ``None`` for all.

    ``framed``: Docker's 8-byte headers. ``details``: the container's labels before each line.
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
    def __init__(self, *, settings: Settings, containers: Containers, live: LiveSet) -> None:
        self._settings = settings
        self._containers = containers
        self._live = live

    def check(self, wanted: str, options: LogOptions) -> ContainerRow:
        """:raises NotFound: no such container. :raises InvalidArgument: it keeps no log, or no stream."""
        row = self._containers.find(wanted)
        if not options.stdout and not options.stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if row.record.host_config.log_config.type == "none":
            raise InvalidArgument("configured logging driver does not support reading")
        return row

    async def stream(self, row: ContainerRow, options: LogOptions) -> AsyncIterator[bytes]:
        """The log as bytes to send. With ``follow`` it ends when the container stops (or is removed)."""
        path = self._settings.log_path(row.id)
        live = self._live.get(row.id)
        follower = None
        cancel = None
        if options.follow and live.task is not None:
            # Watched before the first read, so that nothing falls between the two.
            path.touch(exist_ok=True)
            follower = Follower(path)
            cancel = live.on_exit(follower.stop)
        reader = Reader(path, options.selection)
        prefix = self._details(row) if options.details else b""
        try:
            async with aclosing(_batches(reader, follower)) as batches:
                async for records in batches:
                    yield _encode(records, options, prefix)
        finally:
            reader.close()
            if follower is not None:
                follower.close()
            if cancel is not None:
                cancel()

    @staticmethod
    def _details(row: ContainerRow) -> bytes:
        config = row.record.host_config.log_config.config or {}
        wanted = [k for k in (config.get("labels") or "").split(",") if k]
        labels = row.record.config.labels or {}
        return (",".join(f"{k}={labels[k]}" for k in wanted if k in labels) + " ").encode()


async def _batches(reader: Reader, follower: Follower | None) -> AsyncGenerator[list[Record], None]:
    while True:
        # Read once more after the stop: the last lines may have come between the two.
        last = follower is None or follower.stopped
        for records in reader.batches():
            yield records
            await asyncio.sleep(0)
        if last or reader.finished or follower is None:
            return
        await follower.changed()


def _encode(records: list[Record], options: LogOptions, prefix: bytes) -> bytes:
    out = bytearray()
    for record in records:
        data = record.data
        if prefix:
            data = prefix + data
        if options.timestamps:
            data = record.stamp + b" " + data
        if options.framed:
            out += _HEADER.pack(2 if record.stderr else 1, len(data))
        out += data
    return bytes(out)
