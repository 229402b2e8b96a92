"""One file over HTTP, for builds: with a limit, redirects followed here, and fetched again only if it
changed.

:mod:`wherry.registry.addresses` decides which addresses redirects may lead to.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from wherry import __version__
from wherry.errors import Forbidden, InvalidArgument, Unavailable
from wherry.registry.addresses import Guard
from wherry.registry.transport import failure, host_tls

_REDIRECTS_MAX = 10
_FOLLOWED = (301, 302, 303, 307, 308)
_PIECE = 1 << 18
_TIMEOUT = 60.0
_PATIENCE = 5.0
"""Seconds for one of several addresses to accept a connection."""


@dataclass(frozen=True)
class KnownDownload:
    """The validators of an earlier answer."""

    etag: str = ""
    modified: str = ""


@dataclass(frozen=True)
class DownloadAnswer:
    """``digest`` is sha256 in hex, ``mtime`` in nanoseconds since the epoch, 0 for unknown."""

    digest: str
    size: int
    mtime: int
    known: KnownDownload


async def download(
    url: str, write: Callable[[bytes], Any], *, known: KnownDownload, limit: int
) -> DownloadAnswer | None:
    """Fetch ``url`` and pass its bytes on; ``None`` if it has not changed.

    :raises InvalidArgument: no such file, a redirect that may not be followed, or more than ``limit`` bytes.
    :raises Forbidden: an address that must not be asked, or that a redirect must not lead to.
    :raises Unavailable: nobody answers.
    """
    conditions = {"If-None-Match": known.etag} if known.etag else {}
    if known.modified and not known.etag:
        conditions = {"If-Modified-Since": known.modified}
    proxies = {URL(proxy).host or "" for proxy in urllib.request.getproxies().values()}
    async with _asked(url, Guard(proxies=proxies), conditions, proxied=True) as response:
        where = shown(str(response.url))
        if response.status == 304:
            return None
        if response.status != 200:
            raise InvalidArgument(f"cannot fetch {where}: invalid response status {response.status}")
        return await _take(response, write, limit, where)


@dataclass(frozen=True)
class DownloadHost:
    """Where redirects end, and the addresses of that host."""

    url: URL
    addresses: tuple[str, ...]


async def redirected(url: str) -> DownloadHost:
    """Follow the redirects of ``url`` by the rules of :func:`download`, without a proxy and without a
    download.

    :raises InvalidArgument, Forbidden, Unavailable: see there.
    """
    guard = Guard()
    async with _asked(url, guard, {}, proxied=False) as response:
        # Resolve and check again: every returned address has been checked.
        found = await guard.resolve(response.url.host or "")
        return DownloadHost(response.url, tuple(dict.fromkeys(one["host"] for one in found)))


async def pinned(host: str, port: int) -> str:
    """The one address of ``host`` that a program is to connect to. It must look up nothing itself: a second
    lookup may answer otherwise than the one that was checked.

    Of several it is the first that accepts a connection at ``port``.

    :raises Forbidden: nobody's to ask for. :raises Unavailable: there is no such host.
    """
    guard = Guard()
    try:
        guard.check(host)
        found = list(dict.fromkeys(one["host"] for one in await guard.resolve(host)))
    except OSError as e:
        raise Unavailable(f"cannot find host {host[:200]}: {e.strerror or e}") from e
    for address in found if len(found) > 1 else ():
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _PATIENCE)
            writer.close()
            return address
    return found[0]


@asynccontextmanager
async def _asked(
    url: str, guard: Guard, headers: Mapping[str, str], *, proxied: bool
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer after all redirects, with its body unread."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
    own = {"User-Agent": f"wherry/{__version__} (linux)", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, ssl=host_tls()),
        timeout=timeout,
        headers=own,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        try:
            async with AsyncExitStack() as stack:
                yield await _follow(session, stack, guard, URL(url), headers, proxied=proxied)
        except ValueError as e:
            raise InvalidArgument(f"cannot fetch {shown(url)}: not an address: {e}") from e
        except Forbidden as e:
            raise Forbidden(f"cannot fetch {shown(url)}: {e.message}") from e
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise Unavailable(f"cannot fetch {shown(url)}: {failure(URL(url).host or '', e).reason}") from e


async def _follow(
    session: aiohttp.ClientSession,
    stack: AsyncExitStack,
    guard: Guard,
    url: URL,
    headers: Mapping[str, str],
    *,
    proxied: bool,
) -> aiohttp.ClientResponse:
    begun_local = await guard.is_local(url.host or "")
    for _ in range(_REDIRECTS_MAX):
        guard.check(url.host or "")
        asked = session.get(
            url, headers=headers, allow_redirects=False, proxy=_proxy(url) if proxied else None
        )
        response = await stack.enter_async_context(asked)
        if response.status not in _FOLLOWED:
            return response
        target = url.join(URL(response.headers.get("Location", "")))
        response.close()
        if target.scheme not in ("http", "https") or (url.scheme, target.scheme) == ("https", "http"):
            raise InvalidArgument(f"cannot fetch {shown(str(url))}: it redirects to {target.scheme}")
        guard.local, url = begun_local, target
    raise InvalidArgument(f"cannot fetch {shown(str(url))}: too many redirects")


def _proxy(url: URL) -> URL | None:
    """The proxy that this daemon's environment names for an address."""
    host = url.host or ""
    if urllib.request.proxy_bypass(f"{host}:{url.port}"):
        return None
    found = urllib.request.getproxies().get(url.scheme)
    return URL(found) if found else None


async def _take(
    response: aiohttp.ClientResponse, write: Callable[[bytes], Any], limit: int, where: str
) -> DownloadAnswer:
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
    return DownloadAnswer(
        total.hexdigest(), size, mtime, KnownDownload(response.headers.get("ETag", ""), modified)
    )


def shown(url: str) -> str:
    """A URL without the parts that may be secret."""
    try:
        parsed = URL(url)
    except ValueError:
        return url[:200].partition("?")[0]
    return str(parsed.with_user(None).with_query(None).with_fragment(None)) if parsed.host else url
