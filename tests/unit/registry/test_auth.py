"""Who we are to registries: tokens, refresh tokens, one for many requests, and nothing for strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from fakeregistry import Answer, Asked, FakeRegistry, refuse, serving
from patience import patiently
from yarl import URL

from wherry.model.credentials import ANONYMOUS, Credentials
from wherry.registry.config import RegistryConfig, RegistryPlace
from wherry.registry.errors import RegistryError
from wherry.registry.repository import Repository
from wherry.registry.transport import Session, TlsContexts

USER = Credentials("me", "secret")


class TokenServer:
    """A registry that wants the tokens which its other half gives out."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry, self.given, self.accepts = registry, 0, True
        self.seconds: object = 300
        registry.lie = self.answer

    def answer(self, asked: Asked) -> Answer | None:
        if asked.path == "/token":
            self.given += 1
            refresh = b"grant_type=refresh_token" in asked.body and b"refresh_token=R" in asked.body
            if not refresh and asked.authorization != USER.basic and asked.authorization:
                return refuse(401, "UNAUTHORIZED", "incorrect username or password")
            answer = {"token": f"T{self.given}", "expires_in": self.seconds, "refresh_token": "R"}
            return 200, {}, json.dumps(answer).encode()
        if self.accepts and asked.authorization.startswith("Bearer T"):
            return None
        realm = f'Bearer realm="http://{self.registry.host}/token",service="reg",scope="repository:a/b:pull"'
        return refuse(401, "UNAUTHORIZED", "authentication required", **{"WWW-Authenticate": realm})


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving(FakeRegistry()) as made:
        yield made


async def _with(registry: FakeRegistry, credentials: Credentials, times: int) -> Repository:
    config = RegistryConfig(attempts=2, timeout=patiently(5), certificates=())
    async with Session(config, TlsContexts(())) as session:
        place = RegistryPlace(registry.host, "a/b", True)
        base = await session.base(registry.host, insecure=True, scheme="http")
        repository = Repository(session, place, base, credentials, actions="pull", offline=True)
        await asyncio.gather(*(repository.head("1") for _ in range(times)))
        return repository


def ask(registry: FakeRegistry, credentials: Credentials = USER, times: int = 1) -> Repository:
    return asyncio.run(_with(registry, credentials, times))


def test_many_requests_at_once_fetch_one_token(registry: FakeRegistry) -> None:
    tokens = TokenServer(registry)
    registry.manifest("1", "application/json", b"{}")
    repository = ask(registry, times=8)
    assert tokens.given == 1
    assert repository.authorizer.issued == "R"
    (asked,) = registry.asked("GET", "/token")
    assert asked.query["scope"] == ["repository:a/b:pull"]
    assert asked.query["service"] == ["reg"]


def test_a_refresh_token_is_sent_in_the_body(registry: FakeRegistry) -> None:
    TokenServer(registry)
    registry.manifest("1", "application/json", b"{}")
    ask(registry, Credentials(identity_token="R"))
    (asked,) = registry.asked("POST", "/token")
    assert b"refresh_token=R" in asked.body
    assert not asked.authorization


def test_a_registry_that_never_takes_its_tokens_is_asked_three_times(registry: FakeRegistry) -> None:
    tokens = TokenServer(registry)
    tokens.accepts = False
    with pytest.raises(RegistryError) as caught:
        ask(registry)
    assert caught.value.status == 401
    assert len(registry.asked("HEAD", "/manifests/")) == 3
    assert tokens.given == 2


def test_a_wrong_password_is_said_once(registry: FakeRegistry) -> None:
    TokenServer(registry)
    with pytest.raises(RegistryError, match="incorrect username or password"):
        ask(registry, Credentials("me", "wrong"))
    assert len(registry.asked("GET", "/token")) == 1


def test_basic_is_for_every_request_at_once_too(registry: FakeRegistry) -> None:
    registry.manifest("1", "application/json", b"{}")
    registry.lie = lambda asked: (
        None
        if asked.authorization == USER.basic
        else refuse(401, "UNAUTHORIZED", "no", **{"WWW-Authenticate": 'Basic realm="x"'})
    )
    ask(registry, times=8)
    with pytest.raises(RegistryError):
        ask(registry, ANONYMOUS)


def test_nothing_secret_follows_a_redirect_or_goes_to_a_realm_in_the_clear(registry: FakeRegistry) -> None:
    with serving(FakeRegistry()) as other:
        other.manifest("1", "application/json", b"{}")
        registry.lie = lambda asked: (
            (307, {"Location": f"http://{other.host}{asked.path}"}, b"")
            if asked.authorization
            else refuse(401, "UNAUTHORIZED", "no", **{"WWW-Authenticate": "Basic"})
        )
        ask(registry)
        (followed,) = other.asked("HEAD", "/manifests/1")
        assert not followed.authorization
        # Who was redirected to may not ask who we are.
        other.lie = lambda asked: refuse(401, "UNAUTHORIZED", "no", **{"WWW-Authenticate": "Basic"})
        with pytest.raises(RegistryError):
            ask(registry)
        assert not any(asked.authorization for asked in other.log)
    registry.lie = lambda asked: refuse(
        401, "UNAUTHORIZED", "no", **{"WWW-Authenticate": 'Bearer realm="http://elsewhere.example/token"'}
    )
    with pytest.raises(RegistryError, match="is not https"):
        ask(registry)


def test_credentials_do_not_print_themselves() -> None:
    assert "secret" not in repr(USER)


def test_what_is_sent_goes_along_with_a_redirect_that_wants_it_to(registry: FakeRegistry) -> None:
    data = b"x" * 300_000

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async def work(other: FakeRegistry) -> None:
        config = RegistryConfig(attempts=2, timeout=5, certificates=())
        async with Session(config, TlsContexts(())) as session:
            for status, method, body in ((307, "PUT", data), (308, "PATCH", pieces), (308, "POST", b"")):
                registry.lie = lambda asked, s=status: (s, {"Location": f"http://{other.host}/moved"}, b"")
                other.lie = lambda asked: (201, {"Location": "next"}, b"")
                url = URL(f"http://{registry.host}/v2/a/b/blobs/uploads/")
                headers = {"Content-Length": str(len(data))} if callable(body) else {}
                async with session.send(
                    method, url, headers=headers, authorization="Basic x", body=body, insecure=True
                ) as answer:
                    assert (answer.status, answer.url.path) == (201, "/moved")
                (one,) = other.asked(method, "/moved")
                assert not one.authorization
                assert one.body == (b"" if method == "POST" else data)
            registry.lie = lambda asked: (302, {"Location": f"http://{other.host}/moved"}, b"")
            async with session.send("PUT", url, body=data, insecure=True) as answer:
                assert answer.status == 302, "that one would be asked for with GET, which an upload is not"

    with serving(FakeRegistry()) as other:
        asyncio.run(work(other))


@pytest.mark.parametrize("seconds", [None, 0, -5, "soon", [300]])
def test_a_token_whose_time_makes_no_sense_is_used_for_a_while(
    registry: FakeRegistry, seconds: object
) -> None:
    tokens = TokenServer(registry)
    tokens.seconds = seconds
    registry.manifest("1", "application/json", b"{}")
    ask(registry, times=4)
    assert tokens.given == 1
