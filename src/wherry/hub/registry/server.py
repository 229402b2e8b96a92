"""The HTTP server: finds the endpoint of a request, checks its rights, and turns errors into answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from wherry.errors import WherryError
from wherry.hub.core import names, rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry import (
    access,
    answers,
    blobs,
    listings,
    manifests,
    paths,
    search,
    tagpages,
    tokens,
    uploads,
    watching,
)  # fmt: skip
from wherry.hub.registry.context import Ask, Hub
from wherry.hub.store import repositories
from wherry.hub.store.objects import Full
from wherry.hub.store.sql import DatabaseAway

log = logging.getLogger(__name__)
Handler = Callable[[Ask], Awaitable[web.StreamResponse]]
Other = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Plain = Callable[[Hub, web.BaseRequest], Awaitable[web.StreamResponse]]

_READ, _WRITE, _DELETE = rights.PULL, rights.PUSH, rights.DELETE
METHODS: dict[str, dict[str, tuple[str, Handler]]] = {
    paths.BASE: {"GET": ("", listings.base), "HEAD": ("", listings.base)},
    paths.CATALOG: {"GET": ("", listings.catalog)},
    paths.TAGS: {"GET": (_READ, listings.tag_list), "HEAD": (_READ, listings.tag_list)},
    paths.MANIFEST: {
        "GET": (_READ, manifests.get),
        "HEAD": (_READ, manifests.get),
        "PUT": (_WRITE, manifests.put),
        "DELETE": (_DELETE, manifests.delete),
    },
    paths.BLOB: {
        "GET": (_READ, blobs.get),
        "HEAD": (_READ, blobs.get),
        "DELETE": (_DELETE, blobs.delete),
    },
    paths.UPLOADS: {"POST": (_WRITE, uploads.begin)},
    paths.UPLOAD: {
        "GET": (_WRITE, uploads.status),
        "PATCH": (_WRITE, uploads.patch),
        "PUT": (_WRITE, uploads.put),
        "DELETE": (_WRITE, uploads.cancel),
    },
    paths.REFERRERS: {"GET": (_READ, listings.referrers), "HEAD": (_READ, listings.referrers)},
}
"""Kind of path -> method -> the right it takes, and who answers."""
PLAIN: dict[str, Plain] = {
    "/token": tokens.handle,
    "/v1/search": search.handle,
    "/healthz": watching.healthy,
    "/readyz": watching.ready,
    "/metrics": watching.metrics,
}
WATCHED = ("/healthz", "/readyz", "/metrics")


_http_log = logging.getLogger("wherry.hub.http")
_HEAD = 30.0
"""Seconds within which a new connection must send the head of its first request."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Errors of clients (malformed requests, disconnecting) are not errors for the operator's log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)


_http_log.addFilter(_is_ours)


class RegistryServer:
    """Answers requests. :meth:`http` is the protocol factory of listening sockets."""

    def __init__(
        self, hub: Hub, *, registry: bool = True, api: Other | None = None, pages: Other | None = None
    ) -> None:
        """:param registry: whether it serves clients; always what monitoring asks.
        :param api: answers paths below ``/api/``. :param pages: answers all other paths.
        """
        self._hub = hub
        self._plain = PLAIN if registry else {path: PLAIN[path] for path in WATCHED}
        self._registry, self._api, self._pages = registry, api, pages
        self._new: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self.server = web.Server(
            self._answer,
            auto_decompress=False,  # digests cover the bytes on the wire, and compressed bombs stay small
            access_log=None,
            logger=_http_log,
            keepalive_timeout=75,
            max_line_size=16 << 10,
            max_field_size=16 << 10,
        )

    def http(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        made = self.server()
        self._new[made] = asyncio.get_running_loop().call_later(_HEAD, self._expire, made)
        return made

    def _expire(self, connection: web.RequestHandler) -> None:
        """It sent no request: close idle connections, because a client could hold thousands of them open."""
        self._new.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        hub, began = self._hub, time.monotonic()
        if (waiting := self._new.pop(request.protocol, None)) is not None:
            waiting.cancel()
        number = secrets.token_hex(8)
        kind, status = "other", 500
        hub.counters.running += 1
        try:
            kind, response = await self._routed(request)
            status = response.status
        except Refusal as e:
            status, response = e.status, answers.refusal(e)
        except DatabaseAway as e:
            log.error("request %s: %s", number, e.message)
            status = 503
            response = answers.refusal(
                Refusal("UNAVAILABLE", "the registry cannot answer now", headers={"Retry-After": "5"})
            )
        except Full as e:
            log.error("request %s: %s", number, e)
            told = answers.no_room(e)
            status, response = told.status, answers.refusal(told)
        except WherryError as e:
            status, response = 400, answers.refusal(Refusal("UNSUPPORTED", e.message, status=400))
        except (asyncio.CancelledError, ConnectionError, web.RequestPayloadError, HttpProcessingError):
            status = 499
            raise
        except Exception:
            log.exception("request %s: %s %s", number, request.method, request.path[:300])
            response = answers.document(
                {"errors": [{"code": "UNKNOWN", "message": f"internal error, request {number}"}]}, status=500
            )
        finally:
            hub.counters.running -= 1
            hub.counters.answered(kind, request.method, status, time.monotonic() - began)
        response.headers["X-Request-Id"] = number
        if log.isEnabledFor(logging.DEBUG):
            log.debug("request %s: %s %s: %s", number, request.method, request.path[:300], status)
        return response

    async def _routed(self, request: web.BaseRequest) -> tuple[str, web.StreamResponse]:
        path = request.path
        if path.startswith("/v2/") or path == "/v2":
            if not self._registry:
                raise Refusal("NAME_UNKNOWN", "this process serves pages only")
            return await self._v2(request, path)
        plain = self._plain.get(path)
        if self._api is not None and path.startswith("/api/"):
            return "api", await self._api(request)
        if plain is None and self._pages is not None:
            return "pages", await self._pages(request)
        if plain is None:
            raise Refusal("NAME_UNKNOWN", "no such page")
        return path[1:], await plain(self._hub, request)

    async def _v2(self, request: web.BaseRequest, path: str) -> tuple[str, web.StreamResponse]:
        hub = self._hub
        if "Content-Length" in request.headers and "Transfer-Encoding" in request.headers:
            raise Refusal("SIZE_INVALID", "both Content-Length and Transfer-Encoding")
        place = paths.place(path)
        caller = await access.caller_of(hub, request)
        if place is None and (page := tagpages.place(path)) is not None:
            name, tag = page
            if request.method not in ("GET", "HEAD"):
                raise Refusal("UNSUPPORTED", "method not allowed", headers={"Allow": "GET, HEAD"})
            names.check_repository(name)
            await access.require(hub, request, caller, name, rights.PULL)
            return "tagpages", await tagpages.handle(Ask(hub, request, caller, name, tag))
        if place is None:
            raise Refusal("NAME_UNKNOWN", "no such endpoint")
        methods = METHODS[place.kind]
        if request.method not in methods:
            raise Refusal(
                "UNSUPPORTED", "the operation is unsupported", headers={"Allow": ", ".join(methods)}
            )
        action, handler = methods[request.method]
        if place.kind == paths.BASE and not caller.known and caller.access is None:
            raise access.unauthorized(hub, request, "")  # this is how clients find the token service
        if place.kind == paths.CATALOG and caller.access is not None and not caller.catalog:
            raise access.unauthorized(hub, request, tokens.CATALOG, error="insufficient_scope")
        if action:
            names.check_repository(place.name)
            await access.require(hub, request, caller, place.name, action)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
            # Only now: a client without the right is refused before it sends gigabytes.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        ask = Ask(hub, request, caller, place.name, place.reference)
        try:
            return place.kind, await handler(ask)
        except Refusal as e:
            if e.status != 404 or action != _READ:
                raise
            after = await hub.db.read(lambda tx: repositories.renamed(tx, place.name))
            if after is None:
                raise
        return place.kind, await handler(replace(ask, name=after))
