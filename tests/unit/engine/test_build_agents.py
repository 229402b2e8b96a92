"""An agent behind a socket of the build's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wherry.engine.builds.agents import forwarded, sweep
from wherry.errors import InvalidArgument


def test_connections_are_handed_on_and_nothing_stays(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    async def scenario() -> None:
        agent = tmp_path / "agent"
        server = await asyncio.start_unix_server(answer, str(agent))
        async with forwarded(tmp_path, {"default": str(agent)}) as sockets:
            reader, writer = await asyncio.open_unix_connection(sockets["default"])
            writer.write(b"question")
            assert await reader.read() == b"QUESTION"
            writer.close()
            _, waiting = await asyncio.open_unix_connection(sockets["default"])
        waiting.close()
        server.close()
        assert not list((tmp_path / "agents").iterdir())

    asyncio.run(scenario())
    sweep(tmp_path)
    assert not (tmp_path / "agents").exists()


def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with forwarded(tmp_path, {"x": str(tmp_path / "nothing")}):
            raise AssertionError("it cannot be reached")

    with pytest.raises(InvalidArgument, match="cannot reach SSH agent x"):
        asyncio.run(scenario())
    assert not list((tmp_path / "agents").iterdir())
