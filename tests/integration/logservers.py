"""Log servers of the tests' own: they take what comes and remember it."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import msgspec
from patience import patiently


class Datagrams:
    """UDP, or a unix datagram socket at ``path``."""

    def __init__(self, path: Path | None = None) -> None:
        self.got: list[bytes] = []
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0) if path is None else str(path))
        self.port = self._socket.getsockname()[1] if path is None else 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(65536):
                self.got.append(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(patiently(5))

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def gelf(self) -> list[dict[str, Any]]:
        """Whole GELF documents, chunks put together."""
        parts: dict[bytes, dict[int, bytes]] = {}
        found = []
        for data in list(self.got):
            if data[:2] != b"\x1e\x0f":
                found.append(data)
                continue
            chunks = parts.setdefault(data[2:10], {})
            chunks[data[10]] = data[12:]
            if len(chunks) == data[11]:
                found.append(b"".join(chunks[n] for n in sorted(chunks)))
        return [msgspec.json.decode(gzip.decompress(d) if d[:2] == b"\x1f\x8b" else d) for d in found]


class Stream:
    """TCP on ``port`` (0: any), or a unix stream socket at ``path``; closing it cuts every connection."""

    def __init__(
        self,
        *,
        port: int = 0,
        path: Path | None = None,
        ack: bool = False,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.data = bytearray()
        self._context = context
        self._ack = ack
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port) if path is None else str(path))
        self._socket.listen(16)
        self.port = self._socket.getsockname()[1] if path is None else 0
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        mine = bytearray()
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            while data := connection.recv(65536):
                self.data += data
                mine += data
                while self._ack and (end := _whole(mine)):
                    option = msgspec.msgpack.decode(bytes(mine[:end]))[2]
                    del mine[:end]
                    connection.sendall(msgspec.msgpack.encode({"ack": option["chunk"]}))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join(patiently(5))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lines(self) -> list[bytes]:
        return bytes(self.data).split(b"\n")[:-1]

    def forwarded(self) -> list[tuple[str, dict[str, Any]]]:
        """(tag, record) of every event of fluentd's Forward mode."""
        rest, found = bytes(self.data), []
        while rest and (end := _whole(rest)):
            tag, entries, _option = msgspec.msgpack.decode(rest[:end])
            found += [(tag, record) for _time, record in entries]
            rest = rest[end:]
        return found


def _whole(data: bytes | bytearray) -> int:
    """Where the first MessagePack value ends; 0 when it is not whole."""
    low = _skip(bytes(data), 0)
    return low if 0 < low <= len(data) else 0


def _skip(data: bytes, at: int) -> int:
    """The end of the value at ``at``; beyond the data when it is torn (MessagePack specification)."""
    if at >= len(data):
        return len(data) + 1
    kind = data[at]

    def number(size: int) -> int:
        return int.from_bytes(data[at + 1 : at + 1 + size], "big")

    def items(start: int, count: int) -> int:
        for _ in range(count):
            if start > len(data):
                break
            start = _skip(data, start)
        return start

    if kind < 0x80 or kind >= 0xE0 or kind in (0xC0, 0xC2, 0xC3):
        return at + 1
    if kind < 0x90:
        return items(at + 1, 2 * (kind & 15))
    if kind < 0xA0:
        return items(at + 1, kind & 15)
    if kind < 0xC0:
        return at + 1 + (kind & 31)
    fixed = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
             0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # fmt: skip
    if kind in fixed:
        return at + 1 + fixed[kind]
    sized = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    if kind in sized:
        return at + 1 + sized[kind] + number(sized[kind])
    size = 2 if kind in (0xDC, 0xDE) else 4
    return items(at + 1 + size, number(size) * (2 if kind >= 0xDE else 1))
