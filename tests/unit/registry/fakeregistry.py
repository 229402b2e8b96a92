"""A registry in this process that does what a test tells it to: the honest part, and lies in its place."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wherry.model import digest as digests

sys.path.insert(0, str(Path(__file__).parents[1] / "images"))  # the tools of the images' tests

Answer = tuple[int, dict[str, str], bytes]
Lie = Callable[["Asked"], "Answer | None"]


class Asked:
    """One request."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.headers, self.body = method, headers, body
        parts = urlsplit(path)
        self.path, self.query = parts.path, parse_qs(parts.query)

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class FakeRegistry:
    """``blobs`` and ``manifests`` (by tag or digest: media type, bytes) of every repository. ``lie`` is asked
    first, for each request; ``raw`` writes to the connection itself."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.lie: Lie = lambda asked: None
        self.raw: Callable[[Asked, Any], bool] = lambda asked, file: False
        self.log: list[Asked] = []
        self.host = ""
        self._lock = threading.Lock()

    def blob(self, data: bytes) -> str:
        digest = digests.of(data)
        self.blobs[digest] = data
        return digest

    def manifest(self, tag: str, media_type: str, data: bytes) -> str:
        digest = digests.of(data)
        self.manifests[tag] = self.manifests[digest] = (media_type, data)
        return digest

    def asked(self, method: str, part: str) -> list[Asked]:
        with self._lock:
            return [one for one in self.log if one.method == method and part in one.path]

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.log.append(asked)
        if (lied := self.lie(asked)) is not None:
            return lied
        kind, _, name = asked.path.rpartition("/")
        if asked.path == "/v2/":
            return 200, {}, b"{}"
        if kind.endswith("/manifests"):
            if asked.method == "PUT":
                digest = self.manifest(name, asked.headers.get("content-type", ""), asked.body)
                return 201, {"Docker-Content-Digest": digest}, b""
            if name in self.manifests:
                media_type, data = self.manifests[name]
                return 200, {"Content-Type": media_type, "Docker-Content-Digest": digests.of(data)}, data
            return refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if kind.endswith("/uploads"):
            return self._upload(asked)
        if kind.endswith("/blobs") and name in self.blobs:
            return self._blob(asked, self.blobs[name])
        return refuse(404, "BLOB_UNKNOWN", "blob unknown")

    def _upload(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            return 202, {"Location": f"{asked.path}u1"}, b""
        data = asked.body
        if asked.query.get("digest", [""])[0] != "sha256:" + hashlib.sha256(data).hexdigest():
            return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        return 201, {"Docker-Content-Digest": self.blob(data)}, b""

    def _blob(self, asked: Asked, data: bytes) -> Answer:
        start = asked.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        if not start:
            return 200, {}, data
        said = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return 206, said, data[int(start) :]


def refuse(status: int, code: str, message: str, **headers: str) -> Answer:
    body = {"errors": [{"code": code, "message": message}]}
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


@contextmanager
def serving(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            try:
                if registry.raw(asked, self.wfile):
                    self.close_connection = True
                    return
                status, headers, data = registry.answer(asked)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)
            except ConnectionError:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _do

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
