"""Callers of a web server: one connection for each request, and a note of everything that went wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from patience import patiently, until

SERVER = (
    "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; sleep 0.2; echo {page}' > /w/cgi-bin/page; "
    "chmod +x /w/cgi-bin/page; exec httpd -f -p 80 -h /w"
)
"""A shell command that serves ``{page}`` at ``/cgi-bin/page``, slowly."""


class RequestLoad:
    """``answers``: what came, in order; ``failures``: what went wrong."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []

    def ask(self) -> str:
        """One request. :raises OSError: it was refused, or cut off."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=patiently(10)) as caller:
            caller.sendall(b"GET /cgi-bin/page HTTP/1.0\r\n\r\n")
            with caller.makefile("rb") as file:
                head, _, body = file.read().partition(b"\n\n")
        if b"200" not in head or not body.strip():
            raise ConnectionError(f"half an answer: {head!r} {body!r}")
        return body.decode().strip()

    def await_answers(self, number: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + number
        until(lambda: self.failures or len(self.answers) >= wanted, f"{number} answers")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self.ask())
            except OSError as e:
                self.failures.append(str(e))

    @contextmanager
    def running(self, callers: int = 4) -> Iterator[RequestLoad]:
        threads = [threading.Thread(target=self._run) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
