"""The HTTP server: versions, routing, errors, and who may speak to it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from wherry.api import status, waiting
from wherry.api.callers import initiator
from wherry.api.context import ABANDONED, ROUTE, STREAMING, RequestContext, encode, json_response, let_go
from wherry.api.heads import HEADERS
from wherry.api.recorder import Recorder, recorder_of
from wherry.api.router import Route, Router, split_version
from wherry.engine.engine import Engine
from wherry.engine.events import CALLER, Caller
from wherry.errors import Forbidden, NotFound, WherryError

log = logging.getLogger(__name__)
_http_log = logging.getLogger("wherry.api.http")


_OF_LIFE = (
    "/start", "/stop", "/kill", "/restart", "/pause", "/unpause",
)  # fmt: skip
_OF_THE_MOMENT = ("/exec", "/attach", "/wait", "/resize")
SEQUENCE = "application/json-seq"
_WIDE, _NARROW = 1 << 19, 1 << 16
"""Bytes of a body that may wait to be read, twice over: enough that an archive comes in few, large
pieces, and so few that a thousand clients may have that many."""
_MANY = 32
"""Requests at once, after which it is worth while to look what memory is free."""
_WIDE_MAX = 16
"""Connections that have the large ones."""


class Abandoned(web.StreamResponse):
    """Breaks the connection off: the client must not take half an answer for a whole one."""

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__()
        self.force_close()
        if request.transport is not None:
            request.transport.abort()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def begin_stream(
    request: web.BaseRequest, content_type: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the head of a chunked answer at once, before there is a body; clients wait for it.

    A client of HTTP/1.0 knows no chunks: there the end of the connection is that of the answer.
    """
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": content_type, **(headers or {})})
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    else:
        response.force_close()
    request[STREAMING] = True
    await response.prepare(request)
    # aiohttp keeps small heads back for the body; here there may be none for a long time.
    await response.write(b"")
    return response


def _is_ours(record: logging.LogRecord) -> bool:
    """Bytes that are no HTTP are the client's mistake, and are answered; they must not fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log.addFilter(_is_ours)


class Observer(Protocol):
    """Wants to know of requests: ``metrics`` and ``tracing`` do."""

    def begun(self) -> None: ...

    def ended(self, method: str, route: str, code: int, seconds: float, *, stream: bool, parent: str) -> None:
        """:param route: as ``/containers/{id}/json``; it and ``method`` are empty if there is no such route.
        :param parent: the client's ``traceparent`` header, or empty."""


class ApiServer:
    """Answers requests of every listener."""

    def __init__(self, engine: Engine, routes: Iterable[Route]) -> None:
        self._engine = engine
        self.observers: list[Observer] = []
        self._router = Router(routes)
        self._trimming: asyncio.Task[None] | None = None
        self._most = 0
        self._working: dict[asyncio.Task[web.StreamResponse], web.BaseRequest] = {}
        self._wide, self._narrow = self._server(_WIDE), self._server(_NARROW)

    def _server(self, buffer: int) -> web.Server:
        return web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            logger=_http_log,
            keepalive_timeout=75,
            lingering_time=1.0,
            auto_decompress=False,
            read_bufsize=buffer,
        )

    def http(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        return Recorder(self._wide() if len(self._wide.connections) < _WIDE_MAX else self._narrow())

    async def close(self, *, timeout: float) -> None:
        """Break streams off, then let what is being changed come to its end, within ``timeout`` seconds."""
        for work, request in self._working.items():
            if _ends_with_client(request):
                work.cancel()
        await asyncio.gather(self._wide.shutdown(timeout=1.0), self._narrow.shutdown(timeout=1.0))
        if self._working:
            await asyncio.wait(self._working, timeout=timeout)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """A client that goes away ends what is only told to it; a change that it asked for goes on."""
        answer = self._observed(request) if self.observers else self._answer(request)
        work = asyncio.create_task(answer)
        self._working[work] = request
        self._most = max(self._most, len(self._working))
        work.add_done_callback(self._working.pop)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if _ends_with_client(request):
                work.cancel()
            raise

    async def _observed(self, request: web.BaseRequest) -> web.StreamResponse:
        observers = tuple(self.observers)
        for observer in observers:
            observer.begun()
        began, code = time.perf_counter(), 499  # as web servers log a client that has gone
        try:
            response = await self._answer(request)
            if not isinstance(response, Abandoned):
                code = response.status
            return response
        finally:
            seconds = time.perf_counter() - began
            stream = STREAMING in request
            route = request.get(ROUTE, "")
            method = request.method if route else ""  # neither is what a client made up
            parent = request.headers.get("traceparent", "")
            for observer in observers:
                observer.ended(method, route, code, seconds, stream=stream, parent=parent)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        caller = Caller(initiator(request))
        CALLER.set(caller)  # The task's own context: nobody else sees it.
        try:
            response = await self._dispatch(request)
        except WherryError as e:
            code = status.code_of(e)
            if code >= 500 and code != 501:
                level = logging.INFO if e.expected else logging.ERROR
                log.log(level, "%s %s: %s", request.method, request.path, e.message)
            if STREAMING in request:
                if code < 500:
                    log.warning("%s %s broken off: %s", request.method, request.path, e.message)
                return Abandoned(request)
            response = web.Response(status=304) if code == 304 else _error(code, e.message)
        except ConnectionError:
            return Abandoned(request)  # The client has gone.
        except asyncio.CancelledError:
            raise
        except HttpProcessingError as e:
            response = _error(e.code, e.message)
        except web.HTTPException as e:  # what the library finds wrong with a request by itself
            response = _error(e.status, (e.text or e.reason).strip())
        except Exception as e:
            log.exception("%s %s failed", request.method, request.path)
            if STREAMING in request:
                return Abandoned(request)
            response = _error(500, f"internal error: {e.__class__.__name__}: {e}")
        finally:
            caller.active = False
            self._let_go(request)
            if (recorder := recorder_of(request)) is not None:
                recorder.answered()
        if not response.prepared:
            response.headers.update(HEADERS)
            if "Upgrade" in request.headers:
                response.force_close()  # The library reads nothing more as HTTP after such a request.
        return response

    def _let_go(self, request: web.BaseRequest) -> None:
        """A request is answered. After a large one, or after many, memory goes back to the system."""
        over = self._most >= _MANY and len(self._working) <= _MANY // 4
        if over:
            self._most = 0
        if (let_go(request) or over) and (self._trimming is None or self._trimming.done()):
            self._trimming = asyncio.create_task(self._engine.give_memory_back())

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        _check_caller(request)
        log.debug("Calling %s %s", request.method, request.path)
        if "//" in request.rel_url.raw_path:  # a client's address with a slash at its end
            return web.Response(
                status=301, headers={"Location": _single_slashes(request.rel_url.raw_path_qs)}
            )
        version, path = split_version(request.rel_url.raw_path)
        found = self._router.find(request.method, path)
        if found is None and request.method == "HEAD":
            found = self._router.find("GET", path)
        if found is None:
            raise NotFound("page not found")
        handler, params, route = found
        request[ROUTE] = route
        await waiting.until_adopted(self._engine.upkeep.reconciler.adoption, request.method, path, params)
        response = await handler(RequestContext(request, self._engine, params, version))
        if request.method not in ("GET", "HEAD") and not _is_of_the_moment(path):
            await self._engine.settle(rows_only=_is_of_life(path))  # the answer's end is the promise
        return response


def _is_of_life(path: str) -> bool:
    """Whether a request starts or ends what is there: it makes and removes nothing that must last."""
    return path.startswith(("/containers/", "/exec/")) and path.endswith(_OF_LIFE)


def _is_of_the_moment(path: str) -> bool:
    """Whether a request changes nothing that a power cut leaves: an exec and a session end with it, and their
    only rows are events, which are worth no wait for the disk; a wait only tells."""
    return path.startswith("/exec/") or (path.startswith("/containers/") and path.endswith(_OF_THE_MOMENT))


def _ends_with_client(request: web.BaseRequest) -> bool:
    """Whether an answer is only told to its client, and changes nothing that must come to its end."""
    return STREAMING in request or ABANDONED in request or request.method in ("GET", "HEAD")


def _error(code: int, message: str) -> web.Response:
    return json_response({"message": message}, status=code)


def _check_caller(request: web.BaseRequest) -> None:
    """Keep web pages away from a daemon on TCP (DNS rebinding, cross-site requests).

    A browser sends ``Origin`` with whatever could change something, and a ``Host`` that is a name it was
    led astray by; the field's clients send neither.
    :raises Forbidden: such a request.
    """
    transport = request.transport
    family = transport.get_extra_info("socket").family if transport is not None else socket.AF_UNIX
    if family == socket.AF_UNIX:
        return
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise Forbidden("requests from web pages are refused")
    host = request.headers.get("Host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        if name.lower() not in ("", "localhost", socket.gethostname().lower()):
            raise Forbidden(f"host {name[:80]!r} is not this machine") from None


class JsonStream:
    """A response of one JSON document a line, sent as they come. Open it with :meth:`begin`."""

    def __init__(self, response: web.StreamResponse, prefix: bytes = b"") -> None:
        self.response = response
        self._prefix = prefix

    @classmethod
    async def begin(cls, request: web.BaseRequest, content_type: str = "application/json") -> JsonStream:
        """In a sequence of JSON texts each one begins with a record separator (RFC 7464)."""
        prefix = b"\x1e" if content_type == SEQUENCE else b""
        return cls(await begin_stream(request, content_type), prefix)

    async def send(self, value: object) -> None:
        await self.response.write(self._prefix + encode(value))


def _single_slashes(path: str) -> str:
    """The path of a request, without empty parts; its query as it is."""
    path, mark, query = path.partition("?")
    return re.sub("/{2,}", "/", path) + mark + query
