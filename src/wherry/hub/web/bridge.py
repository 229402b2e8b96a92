"""From aiohttp to Django: a request becomes a WSGI call on one of a few threads.

Bodies are small and kept in memory. Pages of public repositories that are the same for everybody are kept for
a few seconds, so that a link in the news costs one page each ten seconds."""

from __future__ import annotations

import io
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web
from multidict import CIMultiDict

from wherry import threads
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.addresses import Trusted
from wherry.hub.registry.bodies import read
from wherry.hub.web import files

log = logging.getLogger(__name__)
THREADS = 6
WAITING_MAX = 100
BODY_MAX = 2_500_000
_METHODS = frozenset({"GET", "HEAD", "POST"})
_KEPT = 10.0
"""Seconds for which a public page is kept."""
_KEPT_MAX = 500
_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"})
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class _Page:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    made: float = 0.0

    def response(self) -> web.Response:
        # A list of pairs: a page can set two cookies.
        pairs = [(name, value) for name, value in self.headers if name.lower() not in _BY_HOP]
        return web.Response(status=self.status, body=self.body, headers=CIMultiDict(pairs))


class Pages:
    """Answers requests with pages; used on the loop."""

    def __init__(self, application: Application, trusted: Trusted, secure: bool) -> None:
        """:param secure: the address for people is https, whatever the request came by."""
        self._application = application
        self._trusted = trusted
        self._secure = secure
        self._threads = threads.Pool("hub-pages", THREADS)
        self._waiting = 0
        self._kept: OrderedDict[tuple[str, str], _Page] = OrderedDict()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """:raises Refusal: too many requests wait, or the body is too large."""
        if request.path.startswith(files.PREFIX):
            return _file(request)
        if request.method not in _METHODS:
            raise Refusal("UNSUPPORTED", "method not allowed", headers={"Allow": ", ".join(sorted(_METHODS))})
        key = (request.headers.get("Host", ""), request.path_qs)
        same = request.method == "GET" and "Cookie" not in request.headers
        kept = self._kept.get(key) if same else None
        if kept is None or kept.made + _KEPT < time.monotonic():
            kept = await self._ask(request)
            if same and ("Cache-Control", f"public, max-age={int(_KEPT)}") in kept.headers:
                self._keep(key, kept)
        if same and kept.status == 200 and _has(kept, request.headers.get("If-None-Match", "")):
            headers = {name: value for name, value in kept.headers if name.lower() != "content-type"}
            return web.Response(status=304, headers=headers)
        return kept.response()

    def _keep(self, key: tuple[str, str], page: _Page) -> None:
        self._kept[key] = page
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)

    async def _ask(self, request: web.BaseRequest) -> _Page:
        if self._waiting >= WAITING_MAX:
            raise Refusal("UNAVAILABLE", "too many requests at once", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            body = await read(request, BODY_MAX, "SIZE_INVALID")
            return await self._threads(self._call, self._environ(request, body))
        finally:
            self._waiting -= 1

    def _environ(self, request: web.BaseRequest, body: bytes) -> dict[str, Any]:
        """PEP 3333: text is bytes, decoded as Latin-1."""
        path, _, query = request.raw_path.partition("?")
        base = self._trusted.base(request)
        scheme, _, host = base.partition("://")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": host.rpartition(":")[0] or host,
            "SERVER_PORT": host.rpartition(":")[2] if ":" in host else "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self._trusted.client(request),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self._secure else scheme,
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in request.headers.items():
            word = name.upper().replace("-", "_")
            # A name with _ would be taken for one with -, and what proxies say was looked at above.
            if "_" in name or word in ("CONTENT_TYPE", "CONTENT_LENGTH") or word.startswith("X_FORWARDED"):
                continue
            key = f"HTTP_{word}"
            joint = "; " if word == "COOKIE" else ","
            environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
        environ["HTTP_HOST"] = host
        return environ

    def _call(self, environ: dict[str, Any]) -> _Page:
        told: list[tuple[int, list[tuple[str, str]]]] = []

        def start(
            status: str, headers: list[tuple[str, str]], error: object = None
        ) -> Callable[[bytes], None]:
            told[:] = [(int(status.partition(" ")[0]), headers)]
            return lambda data: None

        answer = self._application(environ, start)
        try:
            body = b"".join(answer)
        finally:
            if callable(close := getattr(answer, "close", None)):
                close()
        return _Page(*told[0], body, time.monotonic())


def _has(page: _Page, tags: str) -> bool:
    tag = next((value for name, value in page.headers if name.lower() == "etag"), "")
    return bool(tag) and tag in tags


def _file(request: web.BaseRequest) -> web.StreamResponse:
    """:raises Refusal: there is no such file."""
    asset = files.by_path().get(request.path)
    if asset is None or request.method not in ("GET", "HEAD"):
        raise Refusal("NAME_UNKNOWN", "no such page")
    return web.Response(
        body=asset.body if request.method == "GET" else None,
        headers={
            "Content-Type": asset.kind,
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'",
        },
    )
