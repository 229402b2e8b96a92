"""An agent behind a socket of the build's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wherry.engine.builds.agents import agents_of, sweep
from wherry.engine.builds.given import Given
from wherry.errors import InvalidArgument


def test_connections_are_handed_on_and_nothing_stays(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(100):
            writer.write(said.upper())
        writer.close()

    async def scenario() -> None:
        agent = tmp_path / "agent"
        server = await asyncio.start_unix_server(answer, str(agent))
        async with agents_of(tmp_path, Given(agents={"default": str(agent)})) as agents:
            assert not (tmp_path / "agents").exists(), "nobody has asked for one yet"
            assert await agents.socket("other") is None
            socket = await agents.socket("default")
            assert socket is not None
            assert await agents.socket("default") == socket
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"QUESTION"
            writer.close()
            heard, waiting = await asyncio.open_unix_connection(socket)
            waiting.write(b"x")
            assert await heard.readexactly(1) == b"X"
        assert await heard.read() == b"", "it ends with the build"
        waiting.close()
        await waiting.wait_closed()
        server.close()
        assert not list((tmp_path / "agents").iterdir())

    asyncio.run(scenario())
    sweep(tmp_path)
    assert not (tmp_path / "agents").exists()


def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agents_of(tmp_path, Given(agents={"x": str(tmp_path / "nothing")})) as agents:
            await agents.socket("x")

    with pytest.raises(InvalidArgument, match="cannot reach SSH agent x"):
        asyncio.run(scenario())
    assert not (tmp_path / "agents").exists()
