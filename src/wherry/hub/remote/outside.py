"""Requests to addresses that users give; they must not reach hosts that only the hub can reach.

A name is resolved once. The connection uses only those of its addresses that the rules allow.
Redirects are not followed. A response is read up to a limit.
"""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from wherry.errors import InvalidArgument
from wherry.hub.core.reach import Rules


class AddressRefused(OSError):
    """The address is not allowed."""


class OutsideResolver(AbstractResolver):
    """Resolves names to the addresses that the rules allow."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        allowed: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            if self._rules.allows(str(address[0]), port):
                allowed.append(
                    ResolveResult(
                        hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )  # fmt: skip
        if not allowed:
            raise AddressRefused(f"{host} has no public address")
        return allowed

    async def close(self) -> None:
        return None


async def post(
    rules: Rules, url: str, body: bytes, headers: dict[str, str], *, seconds: float = 10, most: int = 2048
) -> tuple[int, str]:
    """The status and the beginning of the response; 0 and the reason if there is no response."""
    try:
        host = urlsplit(rules.check_url(url)).hostname or ""
        port = urlsplit(url).port or (443 if url.startswith("https") else 80)
        if rules.bars(host, port):
            raise AddressRefused(f"{host} is not a public address")
        connector = aiohttp.TCPConnector(resolver=OutsideResolver(rules), use_dns_cache=False)
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            head = await answer.content.read(most)
            return answer.status, head.decode("utf-8", "replace")
    except InvalidArgument as e:
        return 0, e.message
    except (aiohttp.ClientError, OSError, TimeoutError) as e:
        return 0, str(e)[:300] or type(e).__name__
