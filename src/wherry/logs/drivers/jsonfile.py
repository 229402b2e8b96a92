"""json-file: Docker's JSON lines, ``<id>-json.log``, for the tools that tail them.

    {"log":"text\\n","stream":"stdout","attrs":{…},"time":"2026-01-02T03:04:05.123456789Z"}

    <id>-json.log          the newest
    <id>-json.log.1[.gz]   the one before, and so on

The output depends only on the input, byte for byte. So after a kill, the file's size tells how much was
written, and nothing is written twice.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from wherry import threads
from wherry.logs import values
from wherry.logs.drivers.base import LogTarget
from wherry.logs.files import gzipped
from wherry.logs.messages import LogMessage

_MODE = 0o640


@dataclass(frozen=True)
class JsonFileSettings:
    """``max_size`` in bytes, 0 for no bound."""

    max_size: int
    max_file: int
    compress: bool

    @classmethod
    def of(cls, options: Mapping[str, str]) -> JsonFileSettings:
        unlimited = options.get("max-size") == "-1"
        return cls(
            0 if unlimited else values.size(options, "max-size", values.MAX_SIZE),
            values.integer(options, "max-file", values.MAX_FILE, low=1, high=10_000),
            values.boolean(options, "compress", default=False),
        )


class _Line(msgspec.Struct, omit_defaults=True):
    log: str
    stream: str
    attrs: dict[str, str] | None = None
    time: str = ""


class JsonFileSink:
    def __init__(self, path: Path, settings: JsonFileSettings, target: LogTarget) -> None:
        self._path = path
        self._settings = settings
        self._attributes = dict(target.attributes) or None
        # The caller of a delivery may be cancelled while its thread still writes: the thread must not find
        # another file behind its descriptor.
        self._lock = threading.Lock()
        self._fd = -1
        self._size = self._inode = 0
        self._skip = 0
        """How many of the coming bytes are in the file already."""

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        await threads.short(self._write_alone, messages)

    def _write_alone(self, messages: Sequence[LogMessage]) -> None:
        with self._lock:
            self._write(messages)

    def _write(self, messages: Sequence[LogMessage]) -> None:
        known, put = self._skip, 0
        buffer = bytearray()
        most = self._settings.max_size
        try:
            if self._fd < 0:
                self._open()
            for line in self._lines(messages):
                over = min(self._skip, len(line))
                self._skip -= over
                if over == len(line):
                    continue
                line = line[over:]
                # Never in the middle of a line.
                if most and not over and self._size + len(buffer) >= most:
                    while buffer:
                        put += self._put(buffer)
                    self._rotate()
                buffer += line
            while buffer:
                put += self._put(buffer)
        except OSError:
            self._skip = known + put
            self._close()
            raise

    def _lines(self, messages: Sequence[LogMessage]) -> Iterator[bytes]:
        encode = msgspec.json.Encoder().encode
        attributes = self._attributes
        for message in messages:
            text = message.line.decode(errors="replace")
            if message.ended:
                text += "\n"
            stream = "stderr" if message.stderr else "stdout"
            yield encode(_Line(text, stream, attributes, message.stamp.decode())) + b"\n"

    def _put(self, buffer: bytearray) -> int:
        count = os.write(self._fd, buffer)
        del buffer[:count]
        self._size += count
        return count

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, _MODE)
        status = os.fstat(self._fd)
        self._inode, self._size = status.st_ino, status.st_size

    def _rotate(self) -> None:
        if self._settings.max_file == 1:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        self._close()
        for number in range(self._settings.max_file - 1, 1, -1):
            for suffix in ("", ".gz"):
                with contextlib.suppress(FileNotFoundError):
                    self._numbered(number - 1, suffix).rename(self._numbered(number, suffix))
        self._path.rename(self._numbered(1))
        self._open()
        if self._settings.compress:
            self._compress(self._numbered(1))

    def _numbered(self, number: int, suffix: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{suffix}")

    @staticmethod
    def _compress(path: Path) -> None:
        try:
            gzipped(path, path.with_name(f"{path.name}.gz"))
        except OSError:
            return  # No room: the file stays uncompressed.
        path.unlink()

    def state(self) -> dict[str, int]:
        return {"inode": self._inode, "size": self._size - self._skip}

    def resume(self, state: Mapping[str, int]) -> None:
        """Output that was written after ``state`` was saved is in the file that was current then, and in
        newer ones. From now on the file exists, for tools that look for it."""
        with contextlib.suppress(OSError):
            self._path.touch(_MODE)
        beyond = 0
        for number in range(self._settings.max_file):
            try:
                status = (self._numbered(number) if number else self._path).stat()
            except FileNotFoundError:
                continue
            beyond += status.st_size
            if status.st_ino == state.get("inode"):
                self._skip = max(0, beyond - state.get("size", 0))
                return

    async def close(self) -> None:
        await threads.short(self._close_alone)

    def _close_alone(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
