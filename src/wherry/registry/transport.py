"""HTTP to registries: TLS settings for each host, proxies, redirects, errors as :class:`RegistryError`.

Credentials are sent only to the origin (scheme, host, port) that they are for. A redirect to another origin
is followed without them, and a redirect from ``https`` to ``http`` is not followed (CVE-2020-15157,
CVE-2026-33540).
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from wherry import __version__
from wherry.errors import Forbidden, InvalidArgument
from wherry.model import paths
from wherry.registry.addresses import Guard
from wherry.registry.config import RegistryConfig, host_name
from wherry.registry.errors import BLOCKED, REFUSED, UNREACHABLE, RegistryError

REDIRECTS_MAX = 10
_BUFFER = 1 << 20
_HEAD_MAX = 64 << 10
_FOLLOWED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_REPEATED = (307, 308)
_LARGE = 1 << 18
"""The size in bytes of the pieces in which a body is sent."""
"""The redirects that repeat the method and the body (RFC 9110, 15.4.8 and 15.4.9)."""

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""The body of a request; a stream is a function that opens it, so that it can be sent again."""


def origin_of(url: URL) -> tuple[str, str, int]:
    """Scheme, host and port: the receiver of a request (RFC 6454)."""
    return url.scheme, (url.host or "").lower(), url.port or 0


def shown(url: URL) -> str:
    """``host[:port]``, as registries are named: without the scheme's default port."""
    port = url.port
    return _host(url) if port in (None, _PORTS.get(url.scheme)) else f"{_host(url)}:{port}"


def _host(url: URL) -> str:
    host = url.raw_host or ""
    return f"[{host}]" if ":" in host else host


@cache
def host_tls() -> ssl.SSLContext:
    """For connections about which nothing is configured: it trusts whom the host trusts. Every connector is
    given it, because aiohttp's own contexts trust nobody here (``daemon/entry``)."""
    return ssl.create_default_context()


class TlsContexts:
    """One TLS context for each host, made again if a file of its directory changes. Lives as long as the
    daemon."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._directories = directories
        self._made: dict[tuple[str, bool], tuple[object, ssl.SSLContext]] = {}

    def has_directory(self, host: str) -> bool:
        """Whether certificates are configured for this host."""
        return bool(self._of(host))

    def _of(self, host: str) -> list[Path]:
        """The directories with the certificates of one host; its name comes from the request."""
        try:
            found = [paths.below(directory, host) for directory in self._directories]
        except InvalidArgument:
            return []
        return [directory for directory in found if directory.is_dir()]

    def for_host(self, host: str, *, verify: bool) -> ssl.SSLContext:
        """:raises RegistryError: a file of the host's directory cannot be used; the text names it."""
        files = [file for directory in self._of(host) for file in sorted(directory.iterdir())]
        state = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        known = self._made.get((host, verify))
        if known is not None and known[0] == state:
            return known[1]
        context = self._make(host, files, verify=verify)
        self._made[host, verify] = (state, context)
        return context

    def _make(self, host: str, files: list[Path], *, verify: bool) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for file in files:
            try:
                if file.suffix == ".crt":
                    context.load_verify_locations(cafile=file)
                elif file.suffix == ".cert":
                    key = file.with_suffix(".key")
                    if key not in files:
                        raise RegistryError(host, REFUSED, f"missing key {key} for client certificate {file}")
                    context.load_cert_chain(file, key)
                elif file.suffix == ".key" and file.with_suffix(".cert") not in files:
                    raise RegistryError(host, REFUSED, f"missing client certificate for key {file}")
            except (OSError, ssl.SSLError) as e:
                raise RegistryError(host, REFUSED, f"cannot use {file}: {e}") from e
        return context


class Session:
    """One operation's connections. ``async with`` closes them."""

    def __init__(self, config: RegistryConfig, tls: TlsContexts) -> None:
        self.config, self.tls = config, tls
        self._schemes: dict[str, str] = {}
        proxies = (config.proxies.http, config.proxies.https)
        self._guard = Guard(proxies={URL(proxy).host or "" for proxy in proxies if proxy})
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._guard, limit=0, limit_per_host=0, ssl=host_tls()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_BUFFER,
            max_line_size=_HEAD_MAX,
            max_field_size=_HEAD_MAX,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=config.timeout, connect=None, sock_read=config.timeout
            ),
            headers={"User-Agent": f"wherry/{__version__} (linux)", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def base(self, host: str, *, insecure: bool, scheme: str = "") -> URL:
        """``https://host``, or ``http://host`` for an insecure registry that does not speak TLS.

        If certificates are configured for the host, TLS is required, without a fallback.
        """
        if not scheme:
            scheme = self._schemes.get(host, "")
        if not scheme:
            scheme = "https"
            if insecure and not self.tls.has_directory(host):
                scheme = await self._probe(host)
            self._schemes[host] = scheme
        return URL.build(scheme=scheme, authority=host, encoded=True)

    async def _probe(self, host: str) -> str:
        try:
            async with self.send("GET", URL(f"https://{host}/v2/"), insecure=True):
                return "https"
        except RegistryError as e:
            if e.code not in (UNREACHABLE, REFUSED):
                raise
            return "http"

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        body: Body = None,
        insecure: bool = False,
        follow: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange, redirects included; the response's body is unread. What is sent goes along with a
        redirect that wants it to.

        :param authorization: only ever sent to the origin of ``url``.
        :param insecure: whether that origin may be taken for what it says it is.
        :raises RegistryError: no answer, or a redirect that must not be followed.
        """
        home, here = origin_of(url), url
        for _ in range(REDIRECTS_MAX + 1):
            at_home = origin_of(here) == home
            sent = dict(headers or {})
            if authorization and at_home:
                sent["Authorization"] = authorization
            may_be_insecure = insecure if at_home else self.config.is_insecure(shown(here))
            response = await self._once(method, here, sent, body, insecure=may_be_insecure)
            try:
                followed = _FOLLOWED if method in ("GET", "HEAD") else _REPEATED
                if not (follow and response.status in followed):
                    yield response
                    return
                here = self._next(here, response)
            finally:
                if response.content.at_eof():
                    response.release()
                else:
                    response.close()
        raise RegistryError(shown(url), REFUSED, f"it redirects more than {REDIRECTS_MAX} times")

    def _next(self, here: URL, response: aiohttp.ClientResponse) -> URL:
        host, location = shown(here), response.headers.get("Location", "")
        try:
            there = here.join(URL(location, encoded=True))
        except ValueError as e:
            raise RegistryError(host, REFUSED, f"it redirects to {location!r}, which is not a URL") from e
        if there.scheme not in ("http", "https") or not there.host:
            raise RegistryError(host, REFUSED, f"it redirects to {location!r}, which is not followed")
        if here.scheme == "https" and there.scheme == "http":
            raise RegistryError(host, REFUSED, f"it redirects from https to http ({shown(there)})")
        rules = (self.config.rule_for(name) for name in {shown(there), f"{_host(there)}:{there.port}"})
        if any(rule is not None and rule.blocked for rule in rules):
            raise RegistryError(host, BLOCKED, f"it redirects to {shown(there)}, which is blocked")
        return there.with_user(None).with_fragment(None)

    async def _once(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body, *, insecure: bool
    ) -> aiohttp.ClientResponse:
        host = shown(url)
        context: ssl.SSLContext | bool = True
        if url.scheme == "https":
            verify = not insecure or self.tls.has_directory(host)
            context = self.tls.for_host(host, verify=verify)
        try:
            self._guard.check(url.host or "")
            return await self._http.request(
                method,
                url,
                headers=headers,
                data=_payload(body() if callable(body) else body),
                allow_redirects=False,
                proxy=self.config.proxies.url_for(url.scheme, host),
                ssl=context,
                server_hostname=None,
            )
        except Forbidden as e:
            raise RegistryError(host, REFUSED, e.message) from e
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
            raise failure(host, e) from e


def _payload(body: Any) -> Any:
    """Large bytes in pieces: aiohttp writes what it is given as bytes in one go, and warns of it."""
    return io.BytesIO(body) if isinstance(body, bytes) and len(body) > _LARGE else body


def failure(host: str, error: BaseException) -> RegistryError:
    """What went wrong on the way to a registry, in words."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        text = getattr(inner, "verify_message", "") or str(inner)
        return RegistryError(host, REFUSED, f"tls: failed to verify certificate: x509: {text}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        inner = getattr(error, "os_error", error)
        return RegistryError(host, REFUSED, f"tls: {getattr(inner, 'reason', None) or inner}")
    if isinstance(error, TimeoutError):
        return RegistryError(host, UNREACHABLE, "it does not answer in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return RegistryError(host, UNREACHABLE, f"lookup {host_name(host)}: no such host")
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        text = os.strerror(number) if number else str(error)
        return RegistryError(host, UNREACHABLE, text.lower())
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return RegistryError(host, UNREACHABLE, "the connection broke off")
    if isinstance(error, aiohttp.ClientResponseError):
        return RegistryError(host, REFUSED, f"it speaks no HTTP: {error.message}", status=error.status)
    return RegistryError(host, UNREACHABLE, str(error) or type(error).__name__)


async def read_bounded(response: aiohttp.ClientResponse, limit: int, host: str, *, timeout: float) -> bytes:
    """A whole small body.

    :param timeout: seconds for all of it, so that one that drips does not last for ever.
    :raises RegistryError: more than ``limit`` bytes, or it breaks off.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > limit:
                    raise RegistryError(host, REFUSED, f"its answer is larger than {limit} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as e:
        raise failure(host, e) from e
    return bytes(data)
