"""The Engine API asked as plainly as it goes, so that what is measured is the daemon and not a client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import Any

from commands import Failed


class Connection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: Any = None, *, ok: tuple[int, ...] = (200,)) -> bytes:
    """The body of the answer. ``body`` is sent as it is when it is bytes, else as JSON.

    :param path: of the daemon's socket.
    :raises Failed: another status than those in ``ok``."""
    with contextlib.closing(Connection(path)) as connection:
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, target, data, {"Content-Type": kind} if body is not None else {})
        answer = connection.getresponse()
        content = answer.read()
    if answer.status not in ok:
        raise Failed(f"{method} {target}: {answer.status} {content[:300]!r}")
    return content
