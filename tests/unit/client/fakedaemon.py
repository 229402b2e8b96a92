"""A small Engine API server on a unix socket: what clients are tested against without a daemon.

Routes are functions by ``"METHOD /path"`` (the version prefix is taken off). A route returns a value to send
as JSON, a :class:`Reply`, a generator of bytes (sent chunked), or None after speaking on the socket itself.
Every request is kept in ``requests``.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from patience import patiently


class Request:
    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        split = urlsplit(target)
        self.path = re.sub(r"^/v[0-9.]+", "", split.path)
        self.query = {k: v[-1] for k, v in parse_qs(split.query, keep_blank_values=True).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    def __init__(self, body: Any = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, headers or {}


class Exchange:
    """One request with its raw socket, for routes that hijack."""

    def __init__(self, request: Request, sock: socket.socket, early: bytes) -> None:
        self.request, self.sock, self.early = request, sock, early

    def upgrade(self) -> None:
        self.sock.sendall(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )

    def read_to_end(self) -> bytes:
        pieces = [self.early]
        while piece := self.sock.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


Route = Callable[[Exchange], Any]


class FakeDaemon:
    def __init__(
        self,
        path: Path | None,
        routes: dict[str, Route],
        *,
        api_version: str = "1.56",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``path`` None listens on a port of 127.0.0.1, with ``tls`` where it is given."""
        self.path, self.routes, self.api_version = path, routes, api_version
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    @property
    def host(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def asked(self, path: str) -> list[Request]:
        return [r for r in self.requests if f"{r.method} {r.path}" == path]

    def __enter__(self) -> FakeDaemon:
        self._listener.bind(str(self.path) if self.path else ("127.0.0.1", 0))
        self._listener.listen()
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(patiently(10))

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._tls is not None:
                try:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                except OSError:
                    sock.close()
                    continue
            self._open.add(sock)
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                buffer = b""
                while True:
                    request, buffer = _read_request(sock, buffer)
                    if request is None or not self._answer(request, sock, buffer):
                        return
        except OSError:
            return
        finally:
            self._open.discard(sock)

    def _answer(self, request: Request, sock: socket.socket, early: bytes) -> bool:
        self.requests.append(request)
        if request.path == "/_ping":
            headers = {"Api-Version": self.api_version, "Ostype": "linux"}
            _send(sock, request, Reply(b"" if request.method == "HEAD" else b"OK", headers=headers))
            return True
        route = self.routes.get(f"{request.method} {request.path}")
        if route is None:
            _send(sock, request, Reply({"message": f"page not found: {request.path}"}, 404))
            return True
        answer = route(Exchange(request, sock, early))
        if answer is None:
            return False
        if isinstance(answer, Iterator):
            _send_chunked(sock, answer)
        else:
            _send(sock, request, answer if isinstance(answer, Reply) else Reply(answer))
        return True


def _read_request(sock: socket.socket, buffer: bytes) -> tuple[Request | None, bytes]:
    while b"\r\n\r\n" not in buffer:
        piece = sock.recv(65536)
        if not piece:
            return None, b""
        buffer += piece
    head, _, buffer = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body, buffer = _read_chunks(sock, buffer)
    else:
        size = int(headers.get("content-length", 0))
        while len(buffer) < size:
            buffer += sock.recv(65536)
        body, buffer = buffer[:size], buffer[size:]
    return Request(method, target, headers, body), buffer


def _read_chunks(sock: socket.socket, buffer: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        while b"\r\n" not in buffer:
            buffer += sock.recv(65536)
        line, _, buffer = buffer.partition(b"\r\n")
        size = int(line, 16)
        while len(buffer) < size + 2:
            buffer += sock.recv(65536)
        body, buffer = body + buffer[:size], buffer[size + 2 :]
        if size == 0:
            return body, buffer


def _send(sock: socket.socket, request: Request, reply: Reply) -> None:
    headers = {"Content-Type": "application/json", **reply.headers}
    if reply.status not in (204, 304):
        headers["Content-Length"] = str(len(reply.body))
    head = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    body = b"" if request.method == "HEAD" else reply.body
    sock.sendall(f"HTTP/1.1 {reply.status} Status\r\n{head}\r\n".encode() + body)


def _send_chunked(sock: socket.socket, pieces: Iterator[bytes]) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload
