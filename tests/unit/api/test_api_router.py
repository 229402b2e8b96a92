from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import web

from wherry.api.app import MODULES, routes
from wherry.api.context import RequestContext
from wherry.api.router import Router, split_version
from wherry.errors import InvalidArgument


class _Nobody:
    """Who takes connections for HTTP/2; here none comes."""

    async def serve(self, transport: asyncio.Transport, early: bytes) -> None:
        raise AssertionError

    def check_session(self, identifier: str) -> None:
        raise AssertionError

    async def session(
        self, transport: asyncio.Transport, early: bytes, identifier: str, key: str, methods: Sequence[str]
    ) -> None:
        raise AssertionError


ROUTER = Router(routes(_Nobody()))


async def _handler(_ctx: RequestContext) -> web.StreamResponse:
    raise AssertionError


def test_every_route_finds_its_own_handler() -> None:
    for module in MODULES:
        for method, pattern, handler in module.ROUTES:
            for value in ("x", "sha256:0"):
                path = pattern
                for name in ("id", "name", "checkpoint", "snapshot"):
                    path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", f"a/{value}")
                path = path.replace("{rest:path}", "a/b")
                found = ROUTER.find(method, path)
                assert found is not None, (method, path)
                assert found[0] is handler, (method, path)


def test_the_reference_has_no_path_that_nobody_answers() -> None:
    listed = Path(__file__).parents[2] / "data" / "engine_api_paths.txt"
    for line in listed.read_text().splitlines():
        method, path = line.split()
        assert ROUTER.find(method, path.replace("{id}", "x").replace("{name}", "x")) is not None, line


def test_parameters_are_decoded() -> None:
    router = Router([("GET", "/a/{id}/b", _handler), ("GET", "/i/{name:path}/json", _handler)])
    assert router.find("GET", "/a/x%2Fy%20z/b") == (_handler, {"id": "x/y z"}, "/a/{id}/b")
    assert router.find("GET", "/i/host:5000/a/b/json") == (
        _handler,
        {"name": "host:5000/a/b"},
        "/i/{name:path}/json",
    )
    assert router.find("GET", "/a/x/y/b") is None
    assert router.find("POST", "/a/x/b") is None
    assert router.find("GET", "/a//b") is None


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/info", (1, 56), "/info"),
        ("/v1.40/info", (1, 40), "/info"),
        ("/v1.56/a/v1.2/b", (1, 56), "/a/v1.2/b"),
        ("/v1.45", (1, 56), "/v1.45"),
        ("/volumes", (1, 56), "/volumes"),
    ],
)
def test_versions(path: str, version: tuple[int, int], rest: str) -> None:
    assert split_version(path) == (version, rest)


@pytest.mark.parametrize("path", ["/v1.39/x", "/v0.9/x", "/v1.57/x", "/v2.0/x", f"/v1.{'9' * 6000}/x"])
def test_versions_out_of_range(path: str) -> None:
    with pytest.raises(InvalidArgument, match="client version"):
        split_version(path)
