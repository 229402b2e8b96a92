"""Containers taken over in turn, and at once when a request concerns them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherry.api import waiting
from wherry.engine.upkeep.adoption import Adoption
from wherry.errors import NotFound


class Line:
    """Takes a container over when it is told to go on; notes the order."""

    def __init__(self, tmp_path: Path) -> None:
        self.taken: list[str] = []
        self.go = asyncio.Event()
        ground: Any = SimpleNamespace(
            settings=SimpleNamespace(task_directory=lambda one: tmp_path / one),
            containers=SimpleNamespace(find=self._find),
        )
        self.adoption = Adoption(ground, self._take)

    @staticmethod
    def _find(wanted: str) -> object:
        if wanted == "nobody":
            raise NotFound("No such container: nobody")
        return SimpleNamespace(id=wanted.removeprefix("/"))

    async def _take(self, container_id: str) -> None:
        await self.go.wait()
        self.taken.append(container_id)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:
        asyncio.run(test(*arguments, **keywords))

    return run


def waits(work: Any) -> asyncio.Task[None]:
    return asyncio.ensure_future(work)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@on_a_loop
async def test_who_is_asked_for_comes_first(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.adoption.begin(["a", "b", "c"])
    running = waits(line.adoption.run())
    await turns()
    asked = waits(line.adoption.of("/c"))
    again = waits(line.adoption.of("c"))
    await turns()
    assert not asked.done()
    line.go.set()
    await asyncio.gather(asked, again, running)
    assert line.taken == ["a", "c", "b"]
    assert line.adoption.is_over
    await line.adoption.of("a")


@on_a_loop
async def test_a_request_for_somebody_else_does_not_wait(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.adoption.begin(["a"])
    await line.adoption.of("nobody")
    await line.adoption.of("z")
    assert not line.adoption.is_over


@on_a_loop
async def test_a_client_that_leaves_ends_no_adoption(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.adoption.begin(["a"])
    asked = waits(line.adoption.of("a"))
    await turns()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    line.go.set()
    await line.adoption.everyone()
    assert line.taken == ["a"]


@on_a_loop
async def test_a_stop_waits_only_for_what_is_under_way(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.adoption.begin(["a", "b"])
    running = waits(line.adoption.run())
    await turns()
    closing = waits(line.adoption.close())
    await turns()
    assert not closing.done()
    line.go.set()
    await asyncio.gather(closing, running)
    assert line.taken == ["a"]


CASES = [
    ("GET", "/_ping", {}, "none"),
    ("GET", "/containers/json", {}, "none"),
    ("POST", "/containers/create", {}, "none"),
    ("POST", "/images/create", {}, "none"),
    ("GET", "/images/a/b/json", {"name": "a/b"}, "none"),
    ("GET", "/networks/x", {"id": "x"}, "none"),
    ("GET", "/volumes", {}, "none"),
    ("GET", "/containers/b/json", {"id": "b"}, "b"),
    ("DELETE", "/containers/b", {"id": "b"}, "b"),
    ("GET", "/exec/e/json", {"id": "e"}, "c"),
    ("GET", "/containers/stats", {}, "all"),
    ("POST", "/containers/prune", {}, "all"),
    ("POST", "/networks/x/connect", {"id": "x"}, "all"),
    ("DELETE", "/networks/x", {"id": "x"}, "all"),
    ("GET", "/volumes/v/archive", {"name": "v"}, "all"),
    ("POST", "/commit", {}, "all"),
    ("POST", "/nobody/thought/of", {}, "all"),
]


@pytest.mark.parametrize(("method", "path", "params", "who"), CASES)
@on_a_loop
async def test_which_request_waits_for_whom(
    tmp_path: Path, method: str, path: str, params: dict[str, str], who: str
) -> None:
    (tmp_path / "c" / "execs" / "e").mkdir(parents=True)
    line = Line(tmp_path)
    line.adoption.begin(["a", "b", "c"])
    line.go.set()
    await waiting.until_adopted(line.adoption, method, path, params)
    assert line.taken == {"none": [], "all": ["a", "b", "c"]}.get(who, [who])
