"""One repository of one registry: the distribution API's requests, each with authorization and retries."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import aiohttp
from yarl import URL

from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.reference import check_tag
from wherry.registry import errors
from wherry.registry.auth import Authorizer
from wherry.registry.config import RegistryPlace
from wherry.registry.errors import RegistryError
from wherry.registry.transport import Body, Session, origin_of, read_bounded, shown

ACCEPT = ", ".join(
    (oci.INDEX, oci.DOCKER_LIST, oci.MANIFEST, oci.DOCKER_MANIFEST, "application/json;q=0.5", "*/*;q=0.1")
)
_ERROR_MAX = 64 << 10
_LIST_MAX = 8 << 20
_PAGES_MAX = 1000
_FIRST_WAIT = 0.2
_WAIT_MAX = 10.0
_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?', re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """A manifest or an index as received: ``media_type`` as the registry names it, without parameters."""

    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True)
class Head:
    """The answer to HEAD of a manifest."""

    digest: Digest | None
    media_type: str
    size: int


class Repository:
    """Requests about one repository. ``actions``: the rights that the requests need, ``pull`` or
    ``pull,push``."""

    def __init__(
        self,
        session: Session,
        place: RegistryPlace,
        base: URL,
        credentials: Credentials,
        *,
        actions: str,
        offline: bool = False,
    ) -> None:
        self.session, self.place, self.base = session, place, base
        self.authorizer = Authorizer(session, base, credentials, insecure=place.insecure, offline=offline)
        self.scope = f"repository:{place.path}:{actions}" if place.path else ""

    @property
    def host(self) -> str:
        return self.place.host

    @property
    def config(self) -> Any:
        return self.session.config

    def error(self, code: str, reason: str) -> RegistryError:
        return RegistryError(self.host, code, reason)

    # requests

    def url(self, path: str) -> URL:
        return self.base.join(URL(f"/v2/{path}", encoded=True))

    def below(self, path: str) -> URL:
        """The URL of something in the repository."""
        return self.url(f"{self.place.path}/{path}")

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        ok: Sequence[int] = (200,),
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        scope: str | None = None,
        unknown: str = errors.NAME_UNKNOWN,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. If the registry asks for a token, fetch one and try again; no other retries.

        :param ok: statuses that are returned. :param unknown: the code for a 404 that has none.
        :raises RegistryError: every other status.
        """
        scope = self.scope if scope is None else scope
        at_home = origin_of(url) == origin_of(self.base)
        # At most three tries: without a token, with the token at hand, with a new one.
        for tries_left in (2, 1, 0):
            authorization = await self.authorizer.header(scope) if at_home else ""
            async with self.session.send(
                method,
                url,
                headers=headers,
                authorization=authorization,
                body=body,
                insecure=self.place.insecure,
            ) as response:
                if response.status in ok:
                    yield response
                    return
                data = b""
                if method != "HEAD":
                    data = await read_bounded(response, _ERROR_MAX, self.host, timeout=self.config.timeout)
                # Only answer challenges of the registry itself, not of a host that it redirected to.
                again = (
                    tries_left > 0
                    and response.status == 401
                    and origin_of(response.url) == origin_of(self.base)
                    and self.authorizer.challenged(
                        response.headers.getall("WWW-Authenticate", []), scope, authorization
                    )
                )
                if not again:
                    raise refusal(self.host, response, data, unknown)

    async def retrying(self, work: Any, *arguments: Any, **keywords: Any) -> Any:
        """Repeat a request after temporary errors, ``config.attempts`` times, with growing pauses."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await work(*arguments, **keywords)
            except RegistryError as e:
                if not e.temporary or attempt >= self.config.attempts:
                    raise
                await self.wait(attempt, e)

    async def wait(self, attempt: int, error: RegistryError) -> None:
        """Wait before attempt ``attempt + 1``: as long as the registry asks for, else twice as long each
        time.

        :raises RegistryError: ``error``, if the registry asks for a longer wait than we allow.
        """
        if error.retry_after is not None:
            if error.retry_after > self.config.timeout:
                raise error
            await asyncio.sleep(error.retry_after)
            return
        most = min(_WAIT_MAX, _FIRST_WAIT * 2 ** (attempt - 1))
        await asyncio.sleep(most * random.uniform(0.5, 1.0))

    # reading

    async def ping(self) -> None:
        """:raises RegistryError: it is not a registry, or refuses the credentials."""

        async def once() -> None:
            async with self.request("GET", self.url(""), scope=""):
                return

        await self.retrying(once)

    async def head(self, reference: str) -> Head:
        """The descriptor of a tag or a digest; registries do not count this as a pull."""

        async def once() -> Head:
            url = self.below(f"manifests/{reference}")
            headers = {"Accept": ACCEPT}
            async with self.request(
                "HEAD", url, headers=headers, unknown=errors.MANIFEST_UNKNOWN
            ) as response:
                said = response.headers.get("Docker-Content-Digest", "")
                return Head(
                    Digest(said) if digests.is_digest(said) else None,
                    _media_type(response),
                    response.content_length or 0,
                )

        found: Head = await self.retrying(once)
        return found

    async def manifest(self, reference: str, accept: str = ACCEPT) -> Document:
        """A manifest or an index by tag or digest; the digest is verified if the reference is a digest.

        :raises RegistryError: it does not exist, is too large, or has the wrong digest.
        """
        found: Document = await self.retrying(self._manifest, reference, accept)
        return found

    async def _manifest(self, reference: str, accept: str) -> Document:
        url = self.below(f"manifests/{reference}")
        headers = {"Accept": accept}
        async with self.request("GET", url, headers=headers, unknown=errors.MANIFEST_UNKNOWN) as response:
            check_encoding(self.host, response)
            limit = oci.MANIFEST_SIZE_MAX
            if (response.content_length or 0) > limit:
                raise self.error(errors.REFUSED, f"manifest {reference} is larger than {limit} bytes")
            data = await read_bounded(response, limit, self.host, timeout=self.config.timeout)
            said = response.headers.get("Docker-Content-Digest", "")
            media_type = _media_type(response)
        digest = digests.of(data)
        if digests.is_digest(reference) and digest != reference:
            raise self.error(errors.REFUSED, f"manifest {reference} came with the digest {digest}")
        if digests.is_digest(said) and said != digest:
            raise self.error(
                errors.REFUSED, f"it says that manifest {reference} has the digest {said}: it has {digest}"
            )
        return Document(digest, media_type, data)

    async def referrers(self, subject: Digest) -> bytes | None:
        """The registry's list of referrers of ``subject``, an index; None if the registry does not support
        it."""

        async def once() -> bytes | None:
            url = self.below(f"referrers/{subject}")
            headers = {"Accept": oci.INDEX}
            async with self.request("GET", url, ok=(200, 400, 404, 405), headers=headers) as response:
                if response.status != 200 or _media_type(response) != oci.INDEX:
                    return None
                check_encoding(self.host, response)
                limit = oci.MANIFEST_SIZE_MAX
                return await read_bounded(response, limit, self.host, timeout=self.config.timeout)

        found: bytes | None = await self.retrying(once)
        return found

    async def blob_size(self, digest: Digest) -> int | None:
        """The size in bytes of a blob in the repository; None if it does not have the blob."""

        async def once() -> int | None:
            url = self.below(f"blobs/{digest}")
            async with self.request("HEAD", url, ok=(200, 404)) as response:
                return (response.content_length or 0) if response.status == 200 else None

        found: int | None = await self.retrying(once)
        return found

    @asynccontextmanager
    async def blob(
        self, digest: Digest, offset: int = 0
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, int]]:
        """Get a blob from ``offset`` on: the response, and the offset at which it really starts. A registry
        without support for ranges starts at 0."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url = self.below(f"blobs/{digest}")
        async with self.request(
            "GET", url, ok=(200, 206, 416), headers=headers, unknown=errors.BLOB_UNKNOWN
        ) as response:
            check_encoding(self.host, response)
            if response.status == 206:
                said = response.headers.get("Content-Range", "")
                if not said.startswith(f"bytes {offset}-"):
                    raise self.error(errors.REFUSED, f"it answers a range from {offset} with {said!r}")
                yield response, offset
            elif response.status == 200:
                yield response, 0
            else:
                raise RegistryError(
                    self.host, errors.REFUSED, f"it refuses the range from {offset}", status=416
                )

    async def tags(self) -> list[str]:
        """Every tag, in the registry's order."""
        found: list[str] = []
        async for page in self.pages(self.below("tags/list?n=1000")):
            names = page.get("tags") or []
            if not isinstance(names, list):
                raise self.error(errors.REFUSED, "its list of tags is malformed")
            found += [check_tag(str(name)) for name in names]
        return found

    async def pages(self, url: URL, scope: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """JSON objects, following ``Link: <…>; rel="next"`` within the registry."""
        for _ in range(_PAGES_MAX):
            page, link = await self.retrying(self._page, url, scope)
            yield page
            match = _NEXT.search(link)
            if match is None:
                return
            following = url.join(URL(match[1], encoded=True))
            if origin_of(following) != origin_of(self.base) or following == url:
                raise self.error(errors.REFUSED, f"its list continues at a foreign address, {match[1]!r}")
            url = following
        raise self.error(errors.REFUSED, "its list does not end")

    async def _page(self, url: URL, scope: str | None) -> tuple[dict[str, Any], str]:
        headers = {"Accept": "application/json"}
        async with self.request("GET", url, headers=headers, scope=scope) as response:
            data = await read_bounded(response, _LIST_MAX, self.host, timeout=self.config.timeout)
            link = response.headers.get("Link", "")
        try:
            page = json.loads(data)
        except (ValueError, RecursionError) as e:
            raise self.error(errors.REFUSED, f"its answer is not JSON: {e}") from e
        if not isinstance(page, dict):
            raise self.error(errors.REFUSED, "its answer is not a JSON object")
        return page, link


def check_encoding(host: str, response: aiohttp.ClientResponse) -> None:
    """Digests cover the bytes on the wire, so forbid content encoding."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding not in ("identity", ""):
        raise RegistryError(host, errors.REFUSED, f"it answers in the encoding {encoding!r}, unasked")


def refusal(host: str, response: aiohttp.ClientResponse, data: bytes, unknown: str) -> RegistryError:
    """The error for an unexpected answer, with the registry's code and text if it has them."""
    status = response.status
    code, reason = _first_error(data)
    defaults = {
        401: (errors.UNAUTHORIZED, "authentication required"),
        403: (errors.DENIED, "requested access to the resource is denied"),
        404: (unknown, unknown.lower().replace("_", " ")),
        405: (errors.UNSUPPORTED, "the operation is unsupported"),
        429: (errors.TOO_MANY, "too many requests"),
    }
    default, words = defaults.get(status, (errors.BROKEN, f"HTTP status {status}"))
    if status == 429:
        code = errors.TOO_MANY
    elsewhere = "" if shown(response.url) == host else f" (from {shown(response.url)})"
    return RegistryError(
        host,
        code or default,
        (reason or words) + elsewhere,
        status=status,
        retry_after=_retry_after(response) if status in (429, 503) else None,
    )


def _first_error(data: bytes) -> tuple[str, str]:
    try:
        raw = json.loads(data)
        first = raw["errors"][0]
        code = str(first.get("code") or "")
        text = str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""
    return code if re.fullmatch(r"[A-Z_]{2,40}", code) else "", text


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds (RFC 9110, 10.2.3): a number, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
