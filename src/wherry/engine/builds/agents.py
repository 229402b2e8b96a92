"""SSH agents for ``RUN --mount=type=ssh``: a socket of the build's own, which hands on to the client's agent.

    <run>/agents/<random>/<number>    a socket each, gone with the build

The client names its agent's socket on this host; whoever may build may connect to it by other ways as well.
Steps see the build's socket alone, whose owner and mode they may choose.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.linux import files

_PIECE = 1 << 16


@asynccontextmanager
async def forwarded(run: Path, agents: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """Sockets by the ids of agents. :raises InvalidArgument: an agent does not answer."""
    if not agents:
        yield {}
        return
    directory = run / "agents" / secrets.token_hex(6)
    directory.mkdir(parents=True, mode=0o700)
    async with AsyncExitStack() as stack:
        stack.callback(files.remove_tree, directory)
        sockets: dict[str, str] = {}
        for number, (name, path) in enumerate(agents.items()):
            _try(name, path)
            place = directory / str(number)
            relay = _Relay(path)
            server = await asyncio.start_unix_server(relay.serve, str(place))
            stack.push_async_callback(relay.close)
            stack.callback(server.close)
            sockets[name] = str(place)
        yield sockets


def sweep(run: Path) -> None:
    """Remove what builds of a killed daemon left."""
    files.remove_tree(run / "agents")


def _try(name: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError as e:
            raise InvalidArgument(f"cannot reach SSH agent {name} at {path}: {e.strerror or e}") from e


class _Relay:
    """Connections to one agent."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_unix_connection(self._path)
            try:
                await asyncio.gather(_copy(reader, back), _copy(there, writer))
            finally:
                back.close()
        except OSError:
            pass  # the agent has gone: so does this connection
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError):
        if target.can_write_eof():
            target.write_eof()
