"""Where registries and addresses of Dockerfiles may lead, by an internet of a few pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from wherry.errors import Forbidden, InvalidArgument
from wherry.registry import download
from wherry.registry.addresses import Guard
from wherry.registry.config import PrefixRule, RegistryConfig
from wherry.registry.errors import RegistryError
from wherry.registry.transport import Session, TlsContexts, shown


class Content:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def at_eof(self) -> bool:
        return True

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield self._body


class Page:
    """A redirect where ``leads`` is given."""

    def __init__(self, leads: str = "", status: int = 307) -> None:
        self.status = status if leads else 200
        self.headers = {"Location": leads} if leads else {}
        self.content = Content(b"here")

    def release(self) -> None: ...

    def close(self) -> None: ...


class Web:
    """Pages by address; everything asked is noted."""

    def __init__(self, **pages: str) -> None:
        self.pages = {f"https://{k}.example/": v for k, v in pages.items()}
        self.asked: list[tuple[str, bool]] = []

    def page(self, url: URL, *, authorized: bool = False) -> Page:
        self.asked.append((str(url), authorized))
        return Page(self.pages.get(str(url), ""))


class Registry(Session):
    def __init__(self, web: Web, **config: Any) -> None:
        super().__init__(RegistryConfig(certificates=(), **config), TlsContexts(()))
        self.web = web

    async def _once(self, method: str, url: URL, headers: Any, body: Any, *, insecure: bool) -> Any:
        return self.web.page(url, authorized="Authorization" in headers)


def sent(web: Web, start: str = "https://a.example/", **config: Any) -> list[tuple[str, bool]]:
    async def work() -> None:
        async with (
            Registry(web, **config) as session,
            session.send("GET", URL(start), authorization="Bearer x") as response,
        ):
            assert response.status == 200

    asyncio.run(work())
    return web.asked


def test_a_registry_may_lead_elsewhere_without_its_secrets() -> None:
    web = Web(a="https://b.example/", b="https://a.example/2")
    assert sent(web) == [
        ("https://a.example/", True),
        ("https://b.example/", False),
        ("https://a.example/2", True),
    ]


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        ("http://a.example/", "it redirects from https to http"),
        ("http://b.example/", "it redirects from https to http"),
        ("file:///etc/passwd", "which is not followed"),
        ("data:,x", "which is not followed"),
        ("https://blocked.example/", "redirects to blocked.example, which is blocked"),
        ("https://blocked.example:443/", "which is blocked"),
        ("https://you@blocked.example/", "which is blocked"),
    ],
)
def test_where_a_registry_may_not_lead(leads: str, reason: str) -> None:
    web = Web(a=leads)
    with pytest.raises(RegistryError, match=reason):
        sent(web, rules=(PrefixRule(prefix="blocked.example", blocked=True),))
    assert web.asked == [("https://a.example/", True)]
    with pytest.raises(RegistryError):  # and no more by a way round
        sent(
            Web(a="https://b.example/", b=leads), rules=(PrefixRule(prefix="blocked.example", blocked=True),)
        )


def test_a_block_of_one_port_is_of_that_port() -> None:
    rules = (
        PrefixRule(prefix="b.example:443", blocked=True),
        PrefixRule(prefix="c.example:5000", blocked=True),
    )
    for leads in ("https://b.example/", "https://c.example:5000/"):
        with pytest.raises(RegistryError, match="which is blocked"):
            sent(Web(a=leads), rules=rules)
    assert len(sent(Web(a="https://c.example/"), rules=rules)) == 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.example/x", "a.example"),
        ("https://u:p@a.example:443/x", "a.example"),
        ("http://a.example:443/x", "a.example:443"),
        ("http://a.example/", "a.example"),
        ("https://[::1]/", "[::1]"),
        ("https://[::1]:5000/", "[::1]:5000"),
    ],
)
def test_hosts_are_named_as_in_references(url: str, name: str) -> None:
    assert shown(URL(url)) == name


def test_from_the_clear_it_may_lead_to_either() -> None:
    web = Web()
    web.pages = {"http://a.example/": "http://b.example/", "http://b.example/": "https://b.example/"}
    assert [url for url, _ in sent(web, "http://a.example/")][-1] == "https://b.example/"


def test_ten_redirects_and_no_more() -> None:
    chain = {f"p{n}": f"https://p{n + 1}.example/" for n in range(10)}
    assert len(sent(Web(**chain), "https://p0.example/")) == 11
    with pytest.raises(RegistryError, match="redirects more than 10 times"):
        sent(Web(**chain, p10="https://p11.example/"), "https://p0.example/")


class Downloads:
    """The part of an HTTP client's session that a download uses."""

    def __init__(self, web: Web) -> None:
        self._web = web

    @contextlib.asynccontextmanager
    async def get(self, url: URL, *, headers: Any, allow_redirects: bool, proxy: Any) -> AsyncIterator[Page]:
        assert (allow_redirects, proxy) == (False, None)
        yield self._web.page(url)


def fetched(web: Web, start: str = "https://a.example/") -> bytes:
    async def work() -> bytes:
        guard = Guard()
        guard._inner = Nowhere()  # type: ignore[assignment]
        session: Any = Downloads(web)
        async with contextlib.AsyncExitStack() as stack:
            answer: Any = await download._follow(session, stack, guard, URL(start), {}, proxied=False)
            return bytes(answer.content._body)

    return asyncio.run(work())


class Nowhere:
    """No name has an address: a proxy may know it."""

    async def resolve(self, *_asked: Any) -> Any:
        raise OSError("no such host")


def test_a_download_follows() -> None:
    web = Web(a="https://b.example/")
    assert fetched(web) == b"here"
    assert [url for url, _ in web.asked] == ["https://a.example/", "https://b.example/"]


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        ("http://b.example/", "it redirects to http$"),
        ("file:///etc/passwd", "it redirects to file"),
        ("https://127.0.0.1/", "127.0.0.1 is a local address"),
        ("https://[::1]/", "::1 is a local address"),
        ("https://169.254.169.254/", "169.254.169.254 is a link-local or metadata address"),
    ],
)
def test_where_a_download_may_not_lead(leads: str, reason: str) -> None:
    web = Web(a=leads)
    with pytest.raises((InvalidArgument, Forbidden), match=reason):
        fetched(web)
    assert len(web.asked) == 1


def test_a_local_address_may_lead_to_others() -> None:
    web = Web()
    web.pages = {"http://10.0.0.1/": "http://10.0.0.2/"}
    assert fetched(web, "http://10.0.0.1/") == b"here"


def test_a_download_that_leads_on_for_ever() -> None:
    with pytest.raises(InvalidArgument, match="too many redirects"):
        fetched(Web(a="https://a.example/"))
