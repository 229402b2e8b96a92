"""Builds in tests: contexts made of text, and wherry's own client against the lab's daemon."""

from __future__ import annotations

import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daemonlab import Answer, Done, LabDaemon

Files = Mapping[str, str | bytes]


def write(directory: Path, files: Files) -> Path:
    """Make files; a text that begins with ``->`` is a symbolic link to the rest."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


def archive(files: Files, members: list[tarfile.TarInfo] | None = None) -> bytes:
    """A context as the docker CLI sends it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in members or ():
            tar.addfile(info)
    return out.getvalue()


def post(daemon: LabDaemon, context: bytes, **query: Any) -> Answer:
    """``POST /build`` as the legacy API has it."""
    texts = {k: json.dumps(v) if isinstance(v, (dict, list)) else str(v) for k, v in query.items()}
    path = "/build?" + "&".join(f"{k}={quote(v)}" for k, v in texts.items())
    return daemon.api("POST", path, context, headers={"Content-Type": "application/x-tar"})


def stream(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return "".join(line.get("stream", "") for line in answer.lines)


def error(answer: Answer) -> str:
    """Of a build that failed, before or after its answer began."""
    if answer.status != 200:
        return answer.message
    errors = [line["error"] for line in answer.lines if "error" in line]
    assert errors, answer.body
    return str(errors[-1])


def build(daemon: LabDaemon, directory: Path, *arguments: str) -> Done:
    return daemon.wherry("build", "--progress=plain", *arguments, str(directory))


def built(daemon: LabDaemon, directory: Path, *arguments: str) -> str:
    """The image's id."""
    return daemon.wherry("build", "--quiet", *arguments, str(directory)).ok()


def cat(daemon: LabDaemon, image: str, *paths: str) -> str:
    return daemon.docker("run", "--rm", image, "cat", *paths).ok()


@contextmanager
def web(directory: Path, redirect: str = "") -> Iterator[str]:
    """Files over HTTP on the loopback; ``/redirect`` leads to ``redirect``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def do_GET(self) -> None:
            if self.path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", redirect)
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *_arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
