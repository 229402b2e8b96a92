"""SSH agents for ``RUN --mount=type=ssh``: the build's own sockets, which forward to the client's agent.

    <run>/agents/<random>/<number>    one socket each, made at a step's first use, removed with the build

Steps see only the build's socket. They may choose its owner and mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from wherry.errors import WherryError
from wherry.linux import files

_PIECE = 1 << 16
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AgentOwner(Protocol):
    """The part of :class:`wherry.engine.builds.clients.BuildClient` that is needed here."""

    async def has_agent(self, name: str) -> bool: ...

    async def to_agent(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None: ...


class Agents:
    """The sockets of one build. Use :func:`agents_of`."""

    def __init__(self, run: Path, owner: AgentOwner, stack: AsyncExitStack) -> None:
        self._run, self._owner, self._stack = run, owner, stack
        self._directory: Path | None = None
        self._sockets: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def socket(self, name: str) -> str | None:
        """The path of a socket that leads to an agent; ``None``: the client has no agent of that name."""
        async with self._lock:
            if name not in self._sockets:
                if not await self._owner.has_agent(name):
                    return None
                self._sockets[name] = await self._listen(name)
            return self._sockets[name]

    async def _listen(self, name: str) -> str:
        if self._directory is None:
            self._directory = self._run / "agents" / secrets.token_hex(6)
            self._directory.mkdir(parents=True, mode=0o700)
            self._stack.callback(files.remove_tree, self._directory)
        place = self._directory / str(len(self._sockets))
        relays = _Relays(self._owner, name)
        server = await asyncio.start_unix_server(relays.serve, str(place))
        self._stack.push_async_callback(relays.close)
        self._stack.callback(server.close)
        return str(place)


@asynccontextmanager
async def agents_of(run: Path, owner: AgentOwner) -> AsyncIterator[Agents]:
    """Sockets, made on demand; removed at the end of the ``with``."""
    async with AsyncExitStack() as stack:
        yield Agents(run, owner, stack)


def sweep(run: Path) -> None:
    """Remove leftovers of a killed daemon's builds."""
    files.remove_tree(run / "agents")


class _Relays:
    """Connections to one agent."""

    def __init__(self, owner: AgentOwner, name: str) -> None:
        self._owner, self._name = owner, name
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._owner.to_agent(self._name, reader, writer)
        except (OSError, WherryError):
            pass  # the agent is gone, so the connection ends
        except asyncio.CancelledError:
            pass  # the build has ended; asyncio reports a handler that ends as cancelled as if it had failed
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def relay(*ways: End) -> None:
    """Copy from each reader to its writer, until all have ended."""
    await asyncio.gather(*(_copy(reader, writer) for reader, writer in ways))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError):
        if target.can_write_eof():
            target.write_eof()
