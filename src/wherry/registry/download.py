"""One file over HTTP, for builds: bounded, redirects followed by hand, asked again only if it changed.

Who wrote the Dockerfile chose the address; who answers there did not. So a redirect may not lead to this
host or its networks from elsewhere: every address a name has is looked at in the moment of connecting.
"""

from __future__ import annotations

import email.utils
import hashlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from wherry import __version__
from wherry.errors import InvalidArgument, Unavailable

_REDIRECTS_MAX = 10
_FOLLOWED = (301, 302, 303, 307, 308)
_PIECE = 1 << 18
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Known:
    """What an earlier answer said of itself."""

    etag: str = ""
    modified: str = ""


@dataclass(frozen=True)
class Answer:
    """``digest`` is sha256 in hex, ``mtime`` in nanoseconds since the epoch, 0 for unknown."""

    digest: str
    size: int
    mtime: int
    known: Known


class _Guard(AbstractResolver):
    """Names whose addresses are public, unless ``local`` ones are fine."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()
        self.local = True

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not self.local and any(is_local(one["host"]) for one in found):
            raise OSError(f"{host} is a local address, where a redirect may not lead")
        return found

    async def close(self) -> None:
        await self._inner.close()


def is_local(address: str) -> bool:
    """Whether an address is this host's or of a network that is not the internet's."""
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return not (mapped or found).is_global


async def download(url: str, write: Callable[[bytes], Any], *, known: Known, limit: int) -> Answer | None:
    """Fetch ``url`` and hand its bytes on; ``None`` when it is what is known already.

    :raises InvalidArgument: no such file, a redirect that may not be followed, or more than ``limit`` bytes.
    :raises Unavailable: nobody answers.
    """
    guard = _Guard()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
    connector = aiohttp.TCPConnector(resolver=guard, use_dns_cache=False)
    headers = {"User-Agent": f"wherry/{__version__} (linux)", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=True,
    ) as session:
        try:
            return await _follow(session, guard, URL(url), write, known, limit)
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise Unavailable(f"cannot fetch {shown(url)}: {e or e.__class__.__name__}") from e


async def _follow(
    session: aiohttp.ClientSession,
    guard: _Guard,
    url: URL,
    write: Callable[[bytes], Any],
    known: Known,
    limit: int,
) -> Answer | None:
    conditions = {"If-None-Match": known.etag} if known.etag else {}
    if known.modified and not known.etag:
        conditions = {"If-Modified-Since": known.modified}
    begun_local = await _leads_here(guard, url)
    for _ in range(_REDIRECTS_MAX):
        async with session.get(url, headers=conditions, allow_redirects=False) as response:
            if response.status in _FOLLOWED:
                target = url.join(URL(response.headers.get("Location", "")))
                if target.scheme not in ("http", "https") or (url.scheme, target.scheme) == ("https", "http"):
                    raise InvalidArgument(f"cannot fetch {shown(str(url))}: it redirects to {target.scheme}")
                guard.local = begun_local
                if not begun_local and is_local(target.host or ""):
                    raise InvalidArgument(
                        f"cannot fetch {shown(str(url))}: it redirects to the local address {target.host}"
                    )
                url = target
                continue
            if response.status == 304:
                return None
            if response.status != 200:
                raise InvalidArgument(
                    f"cannot fetch {shown(str(url))}: invalid response status {response.status}"
                )
            return await _take(response, write, limit, shown(str(url)))
    raise InvalidArgument(f"cannot fetch {shown(str(url))}: too many redirects")


async def _leads_here(guard: _Guard, url: URL) -> bool:
    """Whether the address that the Dockerfile names is a local one, whose redirects may be as well."""
    host = url.host or ""
    if is_local(host):
        return True
    try:
        found = await guard.resolve(host, url.port or 0, socket.AF_UNSPEC)
    except OSError:
        return False  # a proxy may know it
    return bool(found) and all(is_local(one["host"]) for one in found)


async def _take(
    response: aiohttp.ClientResponse, write: Callable[[bytes], Any], limit: int, where: str
) -> Answer:
    total, size = hashlib.sha256(), 0
    async for piece in response.content.iter_chunked(_PIECE):
        size += len(piece)
        if size > limit:
            raise InvalidArgument(f"cannot fetch {where}: it has more than {limit} bytes")
        total.update(piece)
        write(piece)
    modified = response.headers.get("Last-Modified", "")
    try:
        mtime = int(email.utils.parsedate_to_datetime(modified).timestamp()) * 10**9 if modified else 0
    except ValueError:
        mtime = 0
    return Answer(total.hexdigest(), size, mtime, Known(response.headers.get("ETag", ""), modified))


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    parsed = URL(url)
    return str(parsed.with_user(None).with_query(None).with_fragment(None)) if parsed.host else url
