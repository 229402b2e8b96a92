"""One request: the decoding that all handlers have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from wherry.api.budget import Budget, Share
from wherry.engine.engine import Engine
from wherry.errors import InvalidArgument, Unavailable
from wherry.wire.gojson import decode
from wherry.wire.numbers import atoi

T = TypeVar("T")

Version = tuple[int, int]


def _mark(name: str, of: type = bool) -> Any:
    """The key under which a value is stored on a request. aiohttp 3.14 and later want a ``RequestKey``."""
    kind = getattr(web, "RequestKey", None)
    return kind(name, of) if kind is not None else f"wherry.{name}"


ROUTE = _mark("route")
"""The route of a request, as the table of routes has it."""
ABANDONED = _mark("abandoned")
"""Marks a request whose work ends when the client disconnects, although its response has not begun."""
STREAMING = _mark("streaming")
"""Set on a request once its response has begun: after that, an error can only break the connection."""
BODY_MAX = 8 << 20
"""The limit of a JSON body in bytes."""
_SMALL = 64 << 10
"""A body up to this many bytes needs no reservation of memory; even a thousand of them are small."""
_SLOWEST = 60.0
"""Seconds within which a larger body must arrive, because others may wait for its memory."""
_SHARE = _mark("share", Share)
_LARGE = Budget(64 << 20, "requests", patience=30.0)


def let_go(request: web.BaseRequest) -> bool:
    """The request is answered: release its memory. :returns: whether no request holds any memory now."""
    share: Share | None = request.get(_SHARE)
    return share is not None and share.close()


@dataclass(frozen=True)
class RequestContext:
    """``params`` are the path's, percent-decoded. ``version`` is the API version the client asked for."""

    request: web.BaseRequest
    engine: Engine
    params: Mapping[str, str]
    version: Version

    @property
    def query(self) -> MultiMapping[str]:
        return self.request.query

    def text(self, name: str, default: str = "") -> str:
        return self.query.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean as Docker parses it: everything except 0, no, false, none and empty is true."""
        value = self.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in ("", "0", "no", "false", "none")

    def truth(self, name: str) -> bool:
        """A boolean as Go's strconv.ParseBool has it; one that is not given is false.

        :raises InvalidArgument: something else.
        """
        text = self.query.get(name, "")
        if text in ("", "0", "f", "F", "false", "FALSE", "False"):
            return False
        if text in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        raise InvalidArgument(
            f'invalid value for {name}: {text[:80]}: strconv.ParseBool: parsing "{text[:80]}": invalid syntax'
        )

    def integer(self, name: str, default: int | None = None) -> int | None:
        """:raises InvalidArgument: not a number."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        return atoi(value)

    async def whole(self, limit: int) -> bytes:
        """The whole body, of any type, in memory; a large one waits until the common budget has room.

        :raises InvalidArgument: it is longer than ``limit``.
        :raises Unavailable: there is not enough memory, or the body does not arrive in time.
        """
        data = bytearray()
        chunks = self.request.content.iter_chunked(1 << 16)
        async for chunk in chunks:
            data += chunk
            if len(data) > _SMALL:
                break
        else:
            return bytes(data)
        announced = self.request.content_length
        self.request[_SHARE] = share = await _LARGE.take(
            limit if announced is None else min(announced, limit)
        )
        try:
            async with asyncio.timeout(_SLOWEST):
                async for chunk in chunks:
                    data += chunk
                    if len(data) > limit:
                        break
        except TimeoutError as e:
            share.close()
            raise Unavailable(f"the request's body did not come within {_SLOWEST:g} seconds") from e
        if len(data) > limit:
            raise InvalidArgument(f"request body too large: more than {limit} bytes")
        return bytes(data)

    async def body(self) -> bytes:
        """The whole body. :raises InvalidArgument: longer than :data:`BODY_MAX`, or its type is not JSON.

        :raises Unavailable: as :meth:`whole`.
        """
        data = await self.whole(BODY_MAX)
        if data and self.request.content_type != "application/json":
            found = self.request.headers.get("Content-Type", "")[:80]
            if not found:
                raise InvalidArgument("malformed Content-Type header (): mime: no media type")
            raise InvalidArgument(f"unsupported Content-Type header ({found}): must be 'application/json'")
        return data

    async def json(self, kind: type[T]) -> T:
        """The body as ``kind``. :raises InvalidArgument: malformed, of the wrong type, or missing."""
        return decode(await self.body(), kind)

    async def optional_json(self, kind: type[T]) -> T:
        """As :meth:`json`; a missing body counts as an empty object.

        Most of Docker's endpoints accept a missing body, and then report the missing fields.
        """
        body = await self.body()
        if not body and self.request.headers.get("Transfer-Encoding") is None:
            body = b"{}"
        return decode(body, kind)


Handler = Callable[[RequestContext], Awaitable[web.StreamResponse]]


def encode(value: Any) -> bytes:
    """Compact JSON, a newline at its end as Docker sends it.

    Bytes that are not UTF-8 (names of files, headers quoted by an error) are replaced by U+FFFD, as Go does.
    """
    try:
        return msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_text_only(msgspec.to_builtins(value))) + b"\n"


def _text_only(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_text_only(k): _text_only(v) for k, v in value.items()}
    return [_text_only(v) for v in value] if isinstance(value, list | tuple) else value


def json_response(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=encode(value), status=status, content_type="application/json")


def no_content() -> web.Response:
    return web.Response(status=204)
