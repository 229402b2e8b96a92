"""Where a redirect may lead, and whom nobody asks."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from wherry.errors import Forbidden, InvalidArgument, Unavailable
from wherry.registry import addresses
from wherry.registry.addresses import Guard, is_local, is_metadata
from wherry.registry.config import RegistryConfig
from wherry.registry.download import KnownDownload, download, pinned, redirected, shown
from wherry.registry.errors import RegistryError
from wherry.registry.transport import Session, TlsContexts

PUBLIC, METADATA = "93.184.216.34", "169.254.169.254"


@pytest.mark.parametrize(
    ("address", "local", "metadata"),
    [
        ("127.0.0.1", True, False),
        ("10.1.2.3", True, False),
        ("100.64.0.1", True, False),
        ("0.0.0.0", True, False),
        ("::1", True, False),
        ("::", True, False),
        ("fd12::1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("64:ff9b::a01:203", True, False),
        ("2002:a01:203::1", True, False),
        ("169.254.169.254", True, True),
        ("169.254.0.1", True, True),
        ("[fe80::1%eth0]", True, True),
        ("::ffff:169.254.169.254", True, True),
        ("::a9fe:a9fe", True, True),
        ("64:ff9b::a9fe:a9fe", True, True),
        ("fd00:ec2::254", True, True),
        ("fd20:ce::254", True, True),
        ("100.100.100.200", True, True),
        ("168.63.129.16", False, True),
        (PUBLIC, False, False),
        ("2606:2800:220:1::1", False, False),
        ("name.example", False, False),
    ],
)
def test_addresses(address: str, local: bool, metadata: bool) -> None:
    assert (is_local(address), is_metadata(address)) == (local, metadata)


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("https://user:secret@host:1/path?token=x#y") == "https://host:1/path"
    assert "secret" not in shown("http://[broken/?secret")


class Names:
    """A resolver. Each name has a list of answers, the last of which stays."""

    known: dict[str, list[str]] = {}

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        answers = self.known.get(host)
        if answers is None:
            raise OSError(f"no such host {host}")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in found else socket.AF_INET
        return [{"hostname": host, "host": found, "port": port, "family": kind, "proto": 0, "flags": 0}]

    async def close(self) -> None: ...


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    Names.known = {}
    monkeypatch.setattr(addresses, "ThreadedResolver", Names)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return Names.known


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Its ``host:port``, where paths redirect to, and what was asked for."""
    redirects: dict[str, str] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            target = redirects.get(self.path)
            self.send_response(302 if target else 200)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_arguments: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}", redirects, asked
        running.shutdown()


def fetch(url: str) -> bytes:
    got = bytearray()
    asyncio.run(download(url, got.extend, known=KnownDownload(), limit=1000))
    return bytes(got)


def test_local_redirects_of_local_addresses(
    names: dict[str, list[str]], server: tuple[str, dict[str, str], list[str]]
) -> None:
    host, redirects, _ = server
    names["home.example"] = ["127.0.0.1"]
    port = host.partition(":")[2]
    redirects["/r"] = f"http://home.example:{port}/there"
    assert fetch(f"http://{host}/r") == b"ok"
    assert fetch(f"http://home.example:{port}/x") == b"ok"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.example/",
        "//169.254.169.254/",
    ],
)
def test_metadata_is_nobodys(
    names: dict[str, list[str]], server: tuple[str, dict[str, str], list[str]], target: str
) -> None:
    """Not by a redirect, even of a local address, nor straight."""
    host, redirects, _ = server
    names["metadata.example"] = [METADATA]
    redirects["/r"] = target
    for url in (f"http://{host}/r", target if "://" in target else f"http:{target}"):
        with pytest.raises(Forbidden, match="link-local or metadata address"):
            fetch(url)
        with pytest.raises(Forbidden):
            asyncio.run(redirected(url))


def test_numbers_that_the_system_takes_for_addresses(server: tuple[str, dict[str, str], list[str]]) -> None:
    """``2852039166`` is 169.254.169.254 to getaddrinfo(3)."""
    for host in ("2852039166", "0xa9fea9fe", "169.16689662", "0251.0376.0251.0376"):
        with pytest.raises(Forbidden):
            fetch(f"http://{host}/")


@pytest.mark.parametrize("where", ["127.0.0.1", "10.0.0.1", "[::1]", "home.example", "localhost"])
def test_nothing_from_elsewhere_leads_here(names: dict[str, list[str]], where: str) -> None:
    names.update({"home.example": ["127.0.0.1"], "localhost": ["127.0.0.1"], "away.example": [PUBLIC]})

    async def follow() -> None:
        guard = Guard()
        guard.local = await guard.is_local("away.example")
        guard.check(where)
        await guard.resolve(where.strip("[]"))

    with pytest.raises(Forbidden, match="a local address, where a redirect may not lead"):
        asyncio.run(follow())


def test_a_name_that_changes_its_address(
    names: dict[str, list[str]], server: tuple[str, dict[str, str], list[str]]
) -> None:
    """What counts is the address that is connected to, not the one that was looked at before."""
    host, _, asked = server
    port = host.partition(":")[2]
    names["rebind.example"] = ["127.0.0.1", METADATA]
    with pytest.raises(Forbidden):
        fetch(f"http://rebind.example:{port}/")
    assert asked == []
    names["rebind.example"] = ["127.0.0.1", "127.0.0.1", METADATA]
    with pytest.raises(Forbidden):  # git would look it up once more
        asyncio.run(redirected(f"http://rebind.example:{port}/"))


def test_a_proxy_may_be_anywhere(
    names: dict[str, list[str]],
    server: tuple[str, dict[str, str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, redirects, asked = server
    names["proxy.example"] = ["127.0.0.1"]
    monkeypatch.setenv("http_proxy", f"http://proxy.example:{host.partition(':')[2]}")
    redirects["http://away.example/r"] = "http://further.example/there"
    assert fetch("http://away.example/r") == b"ok"
    assert asked == ["http://away.example/r", "http://further.example/there"]
    with pytest.raises(Forbidden):
        fetch(f"http://{METADATA}/")


def test_hosts_of_other_protocols(names: dict[str, list[str]]) -> None:
    names.update({"a.example": [PUBLIC], "b.example": [METADATA]})
    assert asyncio.run(pinned("a.example", 22)) == PUBLIC
    for host in ("b.example", METADATA):
        with pytest.raises(Forbidden):
            asyncio.run(pinned(host, 22))
    with pytest.raises(Unavailable):
        asyncio.run(pinned("nobody.example", 22))


@pytest.mark.parametrize("url", ["http://[::1", "http://a:99999/", "http://a:b/", "http:///x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises((InvalidArgument, Unavailable)):
        fetch(url)


def test_a_registry_leads_to_no_metadata_either(
    names: dict[str, list[str]], server: tuple[str, dict[str, str], list[str]]
) -> None:
    from yarl import URL

    host, redirects, _ = server
    names["metadata.example"] = [METADATA]

    async def ask(url: str) -> None:
        async with (
            Session(RegistryConfig(), TlsContexts(())) as session,
            session.send("GET", URL(url), insecure=True),
        ):
            pass

    for target in (f"http://{METADATA}/", "http://metadata.example/"):
        redirects["/r"] = target
        for url in (f"http://{host}/r", target):
            with pytest.raises(RegistryError, match="link-local or metadata address"):
                asyncio.run(ask(url))
