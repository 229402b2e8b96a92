"""One request, decoded as far as every handler needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from wherry.api.services import Services
from wherry.errors import InvalidArgument
from wherry.model.base import decode

T = TypeVar("T")

Version = tuple[int, int]
STREAMING = "wherry.streaming"
"""Set on a request once its answer has begun: it can then only be broken off."""
BODY_MAX = 8 << 20
"""Bytes of a JSON body; more is refused."""


@dataclass(frozen=True)
class Context:
    """``params`` are the path's, percent-decoded. ``version`` is the API version the client asked for."""

    request: web.BaseRequest
    services: Services
    params: Mapping[str, str]
    version: Version

    @property
    def query(self) -> MultiMapping[str]:
        return self.request.query

    def text(self, name: str, default: str = "") -> str:
        return self.query.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value as Docker reads them: anything but 0, no, false, none and empty is true."""
        value = self.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in ("", "0", "no", "false", "none")

    def integer(self, name: str, default: int | None = None) -> int | None:
        """:raises InvalidArgument: not a number."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        try:
            return int(value)
        except ValueError as e:
            raise InvalidArgument(f'strconv.Atoi: parsing "{value[:80]}": invalid syntax') from e

    async def body(self) -> bytes:
        """The whole body. :raises InvalidArgument: longer than :data:`BODY_MAX`, or not JSON by its type."""
        data = bytearray()
        async for chunk in self.request.content.iter_chunked(1 << 16):
            data += chunk
            if len(data) > BODY_MAX:
                raise InvalidArgument(f"request body too large: more than {BODY_MAX} bytes")
        if data and not self._is_json():
            found = self.request.headers.get("Content-Type", "")
            raise InvalidArgument(
                f"unsupported Content-Type header ({found[:80]}): must be 'application/json'"
            )
        return bytes(data)

    def _is_json(self) -> bool:
        return self.request.content_type == "application/json"

    async def json(self, kind: type[T]) -> T:
        """The body as ``kind``. :raises InvalidArgument: malformed, of the wrong type, or missing."""
        data = await self.body()
        if not data.strip():
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return decode(data, kind)

    async def optional_json(self, kind: type[T]) -> T:
        """As :meth:`json`; an empty body is an empty object."""
        return decode(await self.body() or b"{}", kind)


Handler = Callable[[Context], Awaitable[web.StreamResponse]]


def json_response(value: Any, status: int = 200) -> web.Response:
    """Compact JSON, a newline at its end as Docker sends it."""
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, content_type="application/json"
    )


def no_content() -> web.Response:
    return web.Response(status=204)
