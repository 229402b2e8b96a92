"""HTTP to registries: TLS by host, proxies, redirects followed by hand, errors as :class:`RegistryError`.

What is secret goes to the origin (scheme, host, port) it is meant for and nowhere else: a redirect to another
one is followed without it, and one from ``https`` to ``http`` not at all (CVE-2020-15157, CVE-2026-33540).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import aiohttp
from yarl import URL

from wherry import __version__
from wherry.registry.config import RegistryConfig, host_name
from wherry.registry.errors import BLOCKED, REFUSED, UNREACHABLE, RegistryError

REDIRECTS_MAX = 10
_BUFFER = 1 << 20
_HEAD_MAX = 64 << 10
_FOLLOWED = (301, 302, 303, 307, 308)

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""What to send; a stream is given as what makes it, so that it can be sent again."""


def origin_of(url: URL) -> tuple[str, str, int]:
    """Scheme, host, port: who a request goes to (RFC 6454)."""
    return url.scheme, (url.host or "").lower(), url.port or 0


def shown(url: URL) -> str:
    """``host[:port]``, as registries are named."""
    return url.authority.rpartition("@")[2]


class TlsContexts:
    """A context a host, made again when a file of its directory changes. Lives as long as the daemon."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._directories = directories
        self._made: dict[tuple[str, bool], tuple[object, ssl.SSLContext]] = {}

    def has_directory(self, host: str) -> bool:
        """Whether somebody said what this host's certificates are."""
        return any((directory / host).is_dir() for directory in self._directories)

    def for_host(self, host: str, *, verify: bool) -> ssl.SSLContext:
        """:raises RegistryError: a file of the host's directory cannot be used; the text names it."""
        files = [
            file
            for directory in self._directories
            if (directory / host).is_dir()
            for file in sorted((directory / host).iterdir())
        ]
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
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
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
        """``https://host``, or ``http://host`` for a host that need not be secure and speaks no TLS.

        Where somebody has laid down the host's certificates, TLS is what is wanted, and there is no way back.
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
        """One exchange, redirects included; the response's body is unread.

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
                if not (follow and method in ("GET", "HEAD") and response.status in _FOLLOWED):
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
            raise RegistryError(host, REFUSED, f"it redirects to {location!r}, which is no address") from e
        if there.scheme not in ("http", "https") or not there.host:
            raise RegistryError(host, REFUSED, f"it redirects to {location!r}, which is not followed")
        if here.scheme == "https" and there.scheme == "http":
            raise RegistryError(host, REFUSED, f"it redirects from https to http ({shown(there)})")
        rule = self.config.rule_for(shown(there))
        if rule is not None and rule.blocked:
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
            return await self._http.request(
                method,
                url,
                headers=headers,
                data=body() if callable(body) else body,
                allow_redirects=False,
                proxy=self.config.proxies.url_for(url.scheme, host),
                ssl=context,
                server_hostname=None,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
            raise failure(host, e) from e


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
