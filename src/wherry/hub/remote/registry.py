"""Client of another registry over HTTP: reading and writing (distribution-spec 1.1).

Credentials are sent only to the registry's host and to the token service that the operator named, so a
malicious registry cannot redirect them elsewhere. Redirects are followed only for blobs, and only to public
addresses, so a registry cannot make the hub contact internal hosts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import aiohttp

from wherry.errors import InvalidArgument, NotFound, Unavailable
from wherry.hub.core import digests, manifests
from wherry.hub.core.reach import Rules
from wherry.hub.remote.outside import OutsideResolver
from wherry.hub.store.objects import CHUNK
from wherry.model import mediatypes

ACCEPT = ", ".join((*sorted(mediatypes.MANIFEST_TYPES | mediatypes.INDEX_TYPES), manifests.ARTIFACT))
_CHALLENGE = re.compile(r'([a-z]{1,20})="([^"]{0,1000})"')
_PAGES_MAX = 100_000
_REDIRECTS = 5
_FOLLOWED = (200, 206, 301, 302, 303, 307, 308)
"""Statuses of a blob's bytes, and of redirects to them."""
_TRIES = 4
"""How often an interrupted blob is continued."""


class Limited(Unavailable):
    """The registry answered 429.

    :ivar retry_after: the ``Retry-After`` header, unchanged; empty if there was none.
    """

    def __init__(self, text: str, retry_after: str) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass(frozen=True)
class RemoteAccount:
    """:ivar realm: the URL of the token service that may also receive the password."""

    name: str = ""
    password: str = ""
    realm: str = ""


def check_url(url: str) -> str:
    """``https://registry.example``, without a slash at the end.

    :raises InvalidArgument: not a registry's URL.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        raise InvalidArgument(f"invalid address {url[:100]!r}: {e}") from e
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise InvalidArgument(f"invalid address {url[:100]!r}: use http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _challenge(answer: aiohttp.ClientResponse) -> dict[str, str] | None:
    """The parameters of a ``Bearer`` challenge; None if there is none."""
    text = answer.headers.get("WWW-Authenticate", "")
    return dict(_CHALLENGE.findall(text)) if text.lower().startswith("bearer ") else None


def _limited(answer: aiohttp.ClientResponse, url: str) -> Limited:
    return Limited(f"{url}: too many requests", answer.headers.get("Retry-After", "")[:40])


class Registry:
    """Safe to use from many tasks at once. :meth:`close` ends its connections."""

    def __init__(self, url: str, account: RemoteAccount | None = None, rules: Rules | None = None) -> None:
        """:param rules: where redirects may lead besides the registry's own host.
        :raises InvalidArgument: ``url`` is not a registry's address."""
        self.url = check_url(url)
        self._account = account or RemoteAccount()
        self._rules = rules or Rules()
        self._tokens: dict[str, str] = {}
        self._own: aiohttp.ClientSession | None = None
        self._others: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for session in (self._own, self._others):
            if session is not None:
                await session.close()
        self._own = self._others = None

    def _session(self) -> aiohttp.ClientSession:
        """For the registry itself and its token service, which the operator named."""
        if self._own is None:
            self._own = aiohttp.ClientSession(timeout=_timeout(), auto_decompress=False, trust_env=True)
        return self._own

    def _elsewhere(self) -> aiohttp.ClientSession:
        """For addresses that the registry names."""
        if self._others is None:
            connector = aiohttp.TCPConnector(resolver=OutsideResolver(self._rules), use_dns_cache=False)
            self._others = aiohttp.ClientSession(
                connector=connector, timeout=_timeout(), auto_decompress=False
            )
        return self._others

    # requests

    async def request(
        self,
        method: str,
        path: str,
        scope: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        fine: tuple[int, ...] = (200,),
    ) -> aiohttp.ClientResponse:
        """Send a request. :returns: a response whose status is in ``fine``; the caller releases it.

        :param path: a path below the registry's URL, or a full URL on the same host.
        :param data: the body. Before a body that cannot be sent twice, send another request with the same
            scope: it fetches the token if one is needed.
        :raises NotFound: the status is 404, or another one that means the same.
        :raises Limited: the status is 429.
        :raises Unavailable: the status is another one, or there is no response.
        """
        url = path if "://" in path else f"{self.url}{path}"
        if _origin(url) != _origin(self.url):
            raise Unavailable(f"{self.url} refers to another host: {url[:200]}")
        for _ in range(2):
            send = {**(headers or {}), **self._authorization(scope)}
            try:
                answer = await self._session().request(
                    method, url, headers=send, data=data, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                raise Unavailable(f"{self.url} does not answer: {str(e) or type(e).__name__}") from e
            if answer.status in fine:
                return answer
            answer.release()
            if answer.status == 401 and await self._authorized(answer, scope):
                continue
            self._refused(answer, url)
        raise Unavailable(f"{url}: access denied, also with a new token")

    def _authorization(self, scope: str) -> dict[str, str]:
        if scope in self._tokens:
            return {"Authorization": self._tokens[scope]}
        if self._account.name:
            basic = aiohttp.BasicAuth(self._account.name, self._account.password)
            return {"Authorization": basic.encode()}
        return {}

    def _refused(self, answer: aiohttp.ClientResponse, url: str) -> None:
        if answer.status == 404:
            raise NotFound(f"{url}: not found")
        if answer.status == 429:
            raise _limited(answer, url)
        if answer.status in (401, 403) and answer.method in ("GET", "HEAD"):
            # Public registries give this answer for missing and for private repositories.
            raise NotFound(f"{url}: not found, or access denied (status {answer.status})")
        raise Unavailable(f"{url}: status {answer.status}")

    async def _authorized(self, answer: aiohttp.ClientResponse, scope: str) -> bool:
        """Fetch a token. :returns: whether a new one was fetched."""
        challenge = _challenge(answer)
        if challenge is None:
            return False
        self._tokens.pop(scope, None)
        self._tokens[scope] = await self._token(challenge, scope)
        return True

    async def realm(self) -> str:
        """The token service that the registry names in its challenge; empty if it names none.

        :raises Unavailable: the registry does not answer.
        """
        try:
            answer = await self._session().get(f"{self.url}/v2/", allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise Unavailable(f"{self.url} does not answer: {str(e) or type(e).__name__}") from e
        answer.release()
        return (_challenge(answer) or {}).get("realm", "")

    async def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            raise Unavailable(f"{self.url} names no token service")
        named = self._account.realm and _origin(realm) == _origin(self._account.realm)
        trusted = named or _origin(realm) == _origin(self.url)
        auth = None
        if self._account.name and trusted:
            auth = aiohttp.BasicAuth(self._account.name, self._account.password)
        session = self._session() if trusted else self._elsewhere()
        if not trusted:
            self._check_elsewhere(realm)
        query = urlencode({"service": challenge.get("service", ""), "scope": scope})
        joint = "&" if "?" in realm else "?"
        try:
            async with session.get(f"{realm}{joint}{query}", auth=auth, allow_redirects=False) as answer:
                if answer.status == 429:
                    raise _limited(answer, realm)
                if answer.status != 200:
                    raise Unavailable(f"{realm} did not issue a token: status {answer.status}")
                made: Any = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as e:
            raise Unavailable(f"{realm} did not issue a token: {e}") from e
        token = made.get("token") or made.get("access_token") if isinstance(made, dict) else None
        if not isinstance(token, str) or not token:
            raise Unavailable(f"{realm} did not issue a token")
        return f"Bearer {token}"

    def _check_elsewhere(self, url: str) -> None:
        """:raises Unavailable: the host is an IP address that is not allowed. Names are checked when they are
        resolved."""
        _, host, port = _origin(url)
        if self._rules.bars(host, port):
            raise Unavailable(f"{self.url} redirects to {host}, which is not a public address")

    # reading

    async def repositories(self) -> AsyncIterator[str]:
        async for name in self._pages("/v2/_catalog?n=500", "registry:catalog:*", "repositories"):
            yield name

    async def tags(self, repository: str) -> AsyncIterator[str]:
        async for tag in self._pages(f"/v2/{repository}/tags/list?n=500", _pull(repository), "tags"):
            yield tag

    async def untagged(self, repository: str) -> AsyncIterator[str]:
        return
        yield  # registries only list tags; members of indexes and referrers are followed

    async def _pages(self, path: str, scope: str, field: str) -> AsyncIterator[str]:
        for _ in range(_PAGES_MAX):
            async with await self.request("GET", path, scope) as answer:
                try:
                    page: Any = await answer.json(content_type=None)
                except (aiohttp.ClientError, TimeoutError, ValueError) as e:
                    raise Unavailable(f"{self.url}{path}: {e}") from e
                more = answer.headers.get("Link", "")
            for one in page.get(field) or ():
                yield str(one)
            if 'rel="next"' not in more:
                return
            path = urljoin(f"{self.url}{path}", more.partition("<")[2].partition(">")[0])
            path = path.removeprefix(self.url)

    async def digest(self, repository: str, reference: str) -> str:
        """The digest of a tag at the registry, by HEAD; empty if the response does not contain it."""
        path = f"/v2/{repository}/manifests/{quote(reference, safe=':')}"
        async with await self.request("HEAD", path, _pull(repository), headers={"Accept": ACCEPT}) as answer:
            return str(answer.headers.get("Docker-Content-Digest", ""))[:200]

    async def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type of a manifest, and its unverified bytes. If the manifest is larger than allowed, the
        bytes are cut off above the limit."""
        path = f"/v2/{repository}/manifests/{quote(reference, safe=':')}"
        async with await self.request("GET", path, _pull(repository), headers={"Accept": ACCEPT}) as answer:
            try:
                body = await answer.content.read(manifests.SIZE_MAX + 1)
                while len(body) <= manifests.SIZE_MAX and (piece := await answer.content.read(1 << 16)):
                    body += piece
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                raise Unavailable(f"{self.url}: transfer interrupted: {e}") from e
            return answer.headers.get("Content-Type", ""), body

    async def blob(self, repository: str, digest: str) -> AsyncIterator[bytes]:
        """The unverified bytes of a blob. An interrupted transfer is continued with a Range request."""
        opened = await self.open_blob(repository, digest)
        async for piece in opened.pieces():
            yield piece

    async def open_blob(self, repository: str, digest: str) -> RemoteBlob:
        """:raises NotFound: the registry does not have the blob."""
        made = RemoteBlob(self, repository, digest)
        await made.open()
        return made

    async def follow(self, path: str, scope: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """GET that follows redirects. :raises Unavailable:"""
        answer = await self.request("GET", path, scope, headers=headers, fine=_FOLLOWED)
        url = f"{self.url}{path}"
        for _ in range(_REDIRECTS):
            if answer.status in (200, 206):
                return answer
            answer.release()
            url = urljoin(url, answer.headers.get("Location", ""))
            if _origin(url) == _origin(self.url):
                answer = await self.request("GET", url, scope, headers=headers, fine=_FOLLOWED)
                continue
            self._check_elsewhere(url)
            try:
                answer = await self._elsewhere().get(url, headers=headers, allow_redirects=False)
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                raise Unavailable(f"{_origin(url)[1]} does not answer: {str(e) or type(e).__name__}") from e
            if answer.status not in _FOLLOWED:
                answer.release()
                self._refused(answer, url.partition("?")[0])
        answer.release()
        raise Unavailable(f"{self.url}: too many redirects")

    async def referrers(self, repository: str, digest: str, artifact_type: str) -> bytes:
        """The registry's index of a manifest's referrers, unchanged."""
        path = f"/v2/{repository}/referrers/{quote(digest, safe=':')}"
        if artifact_type:
            path += f"?{urlencode({'artifactType': artifact_type})}"
        async with await self.request("GET", path, _pull(repository)) as answer:
            try:
                return await answer.content.read(manifests.SIZE_MAX)
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                raise Unavailable(f"{self.url}: transfer interrupted: {e}") from e

    # writing

    async def has_blob(self, repository: str, digest: str) -> bool:
        path = f"/v2/{repository}/blobs/{digest}"
        try:
            async with await self.request("HEAD", path, _push(repository), fine=(200, 307)):
                return True
        except NotFound:
            return False

    async def push_blob(self, repository: str, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """:raises Unavailable: the registry does not accept it."""
        scope = _push(repository)
        path = f"/v2/{repository}/blobs/uploads/"
        async with await self.request("POST", path, scope, fine=(202,)) as answer:
            place = urljoin(f"{self.url}{path}", answer.headers.get("Location", ""))
        place += f"{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with await self.request("PUT", place, scope, headers=headers, data=pieces, fine=(201, 204)):
            return

    async def push_manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """:raises Unavailable: the registry does not accept it."""
        path = f"/v2/{repository}/manifests/{quote(reference, safe=':')}"
        headers = {"Content-Type": media_type}
        async with await self.request(
            "PUT", path, _push(repository), headers=headers, data=body, fine=(200, 201, 202)
        ):
            return

    async def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag; no error if it does not exist. :raises Unavailable: the registry refuses."""
        path = f"/v2/{repository}/manifests/{quote(tag)}"
        scope = f"repository:{repository}:pull,push,delete"
        try:
            async with await self.request("DELETE", path, scope, fine=(200, 202)):
                return
        except NotFound:
            return


class RemoteBlob:
    """A blob that is being read. :ivar size: its size according to the registry; None if unknown."""

    def __init__(self, registry: Registry, repository: str, digest: str) -> None:
        self._registry, self._repository = registry, repository
        self._path = f"/v2/{repository}/blobs/{digests.check(digest)}"
        self._answer: aiohttp.ClientResponse | None = None
        self.size: int | None = None

    @property
    def url(self) -> str:
        return self._registry.url

    async def open(self, offset: int = 0) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        self._answer = await self._registry.follow(self._path, _pull(self._repository), headers)
        if not offset:
            self.size = self._answer.content_length

    async def pieces(self) -> AsyncIterator[bytes]:
        """:raises Unavailable: the transfer was interrupted too often."""
        done, tries = 0, _TRIES
        while True:
            answer = self._answer
            assert answer is not None
            # A server without support for ranges starts from the beginning.
            skip = done if done and answer.status == 200 else 0
            try:
                async for piece in answer.content.iter_chunked(CHUNK):
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    done += len(piece) - skip
                    yield piece[skip:] if skip else piece
                    skip, tries = 0, _TRIES
                return
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                tries -= 1
                if not tries:
                    raise Unavailable(
                        f"{self._registry.url}: transfer interrupted: {str(e) or type(e).__name__}"
                    ) from e
            finally:
                answer.release()
            await asyncio.sleep(1)
            await self.open(done)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()


async def account_for(url: str, name: str, password: str, realm: str = "") -> RemoteAccount:
    """Credentials for a registry that the operator has just added. The token service is ``realm``, or the one
    that the registry names now.

    :raises Unavailable: the registry does not answer.
    """
    if name and not realm:
        async with Registry(url) as asked:
            realm = await asked.realm()
    return RemoteAccount(name, password, realm)


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=120)


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"
