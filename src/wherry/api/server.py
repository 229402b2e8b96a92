"""The HTTP server: versions, routing, errors, and who may speak to it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable, Mapping

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from wherry import __version__
from wherry.api import status
from wherry.api.callers import initiator
from wherry.api.context import STREAMING, Context, json_response
from wherry.api.router import API_VERSION, Route, Router, split_version, version_text
from wherry.api.services import Services
from wherry.engine.events import CALLER, Caller
from wherry.errors import Forbidden, NotFound, WherryError

log = logging.getLogger(__name__)
_http_log = logging.getLogger("wherry.api.http")

_HEADERS = {
    "Api-Version": version_text(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"wherry/{__version__} (linux)",
}


_READ_BUFFER = 1 << 19
"""Bytes of a body that may wait to be read: enough that an archive comes in few, large pieces."""


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
    """Send the head of a chunked answer at once, before there is a body; clients wait for it."""
    response = web.StreamResponse(headers={**_HEADERS, "Content-Type": content_type, **(headers or {})})
    response.enable_chunked_encoding()
    request[STREAMING] = True
    await response.prepare(request)
    # aiohttp keeps small heads back for the body; here there may be none for a long time.
    await response.write(b"")
    return response


def _is_ours(record: logging.LogRecord) -> bool:
    """Bytes that are no HTTP are the client's mistake, and are answered; they must not fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log.addFilter(_is_ours)


class ApiServer:
    """Answers requests of every listener."""

    def __init__(self, services: Services, routes: Iterable[Route]) -> None:
        self._services = services
        self._router = Router(routes)
        self._working: dict[asyncio.Task[web.StreamResponse], web.BaseRequest] = {}
        self.http = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            logger=_http_log,
            keepalive_timeout=75,
            lingering_time=1.0,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
        )

    async def close(self, *, timeout: float) -> None:
        """Break streams off, then let what is being changed come to its end, within ``timeout`` seconds."""
        for work, request in self._working.items():
            if STREAMING in request:
                work.cancel()
        await self.http.shutdown(timeout=1.0)
        if self._working:
            await asyncio.wait(self._working, timeout=timeout)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """A client that goes away ends what is only told to it; a change that it asked for goes on."""
        work = asyncio.create_task(self._answer(request))
        self._working[work] = request
        work.add_done_callback(self._working.pop)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if STREAMING in request:
                work.cancel()
            raise

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        caller = Caller(initiator(request))
        CALLER.set(caller)  # The task's own context: nobody else sees it.
        try:
            response = await self._dispatch(request)
        except WherryError as e:
            code = status.code_of(e)
            if code >= 500 and code != 501:
                log.error("%s %s: %s", request.method, request.path, e.message)
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
        except Exception as e:
            log.exception("%s %s failed", request.method, request.path)
            if STREAMING in request:
                return Abandoned(request)
            response = _error(500, f"internal error: {e.__class__.__name__}: {e}")
        finally:
            caller.active = False
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        _check_caller(request)
        version, path = split_version(request.rel_url.raw_path)
        found = self._router.find(request.method, path)
        if found is None and request.method == "HEAD":
            found = self._router.find("GET", path)
        if found is None:
            raise NotFound("page not found")
        handler, params = found
        return await handler(Context(request, self._services, params, version))


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

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    @classmethod
    async def begin(cls, request: web.BaseRequest) -> JsonStream:
        return cls(await begin_stream(request, "application/json"))

    async def send(self, value: object) -> None:
        await self.response.write(msgspec.json.encode(value) + b"\n")
