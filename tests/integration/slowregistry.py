"""A registry that sends half of every layer and the rest when it is told to."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class SlowRegistry:
    """``<host>/<any name>:latest`` is an image with one layer of its own. ``stalled`` counts who waits."""

    def __init__(self, *, dead: bool = False) -> None:
        """:param dead: it answers 503 to everything, which a client tries again."""
        self.go, self.lock, self.stalled = threading.Event(), threading.Lock(), 0
        self._blobs: dict[str, bytes] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                return

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                if dead:
                    self._send(b"", 503)
                    return
                parts = self.path.strip("/").split("/")
                if "manifests" in parts:
                    self._send(registry.manifest(parts[1]), media_type=MANIFEST)
                elif "blobs" in parts:
                    self._blob(registry._blobs[parts[-1]])
                else:
                    self._send(b"{}")

            def _send(self, data: bytes, code: int = 200, media_type: str = "application/json") -> None:
                self.send_response(code)
                self.send_header("Content-Type", media_type)
                self.send_header("Docker-Content-Digest", digest(data))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def _blob(self, data: bytes) -> None:
                if data.startswith(b"{"):
                    self._send(data)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                half = len(data) // 2
                self.wfile.write(data[:half])
                with registry.lock:
                    registry.stalled += 1
                registry.go.wait(120)
                self.wfile.write(data[half:])

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_arguments: object) -> None:
                return  # a client that went

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def manifest(self, name: str) -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo(f"file-{name}")
            member.size = 100_000
            tar.addfile(member, io.BytesIO(name.encode().ljust(100_000, b".")))
        layer = gzip.compress(archive.getvalue(), 0, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(archive.getvalue())]},
            }
        ).encode()
        for data in (layer, config):
            self._blobs[digest(data)] = data
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest(config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": digest(layer),
                        "size": len(layer),
                    }
                ],
            }
        ).encode()

    def __enter__(self) -> SlowRegistry:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
