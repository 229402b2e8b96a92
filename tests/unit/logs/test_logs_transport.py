"""Names of log servers: looked up beside the daemon's workers, once for all who ask."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from patience import patiently

from wherry.logs.drivers import transport


def test_a_name_is_looked_up_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *rest: object, **more: object) -> object:
        if host != "log.test":
            return real(host, *rest, **more)  # type: ignore[arg-type]
        asked.append(host)
        assert answer.wait(patiently(10))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 514))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def work() -> list[list[transport.Found]]:
        asking = [asyncio.create_task(transport.resolve("log.test", 514)) for _ in range(50)]
        # The daemon's workers are free meanwhile, and an address needs nobody.
        assert await asyncio.to_thread(lambda: 1) == 1
        assert await transport.resolve("::1", 1) == [(socket.AF_INET6, ("::1", 1))]
        answer.set()
        return await asyncio.gather(*asking)

    found = asyncio.run(work())
    assert found == [[(socket.AF_INET, ("192.0.2.1", 514))]] * 50
    assert asked == ["log.test"]
    assert not transport._lookups


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(OSError, match="not known"):
        asyncio.run(transport.resolve("no.test", 514))
