"""Sessions: connections on which the daemon calls a client, by the id that its builds name.

A session has its own connection (``POST /session``, ``Control.Session``), which may arrive before or after
the build that names it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.rpc.client import Client
from wherry.rpc.methods import Method
from wherry.rpc.status import RpcError

PATIENCE = 10.0
"""Seconds to wait for a session that a build names, and for a build that a call names."""
_ID_MAX = 128
_PING, _SILENCE = 15.0, 30.0


@dataclass
class ClientSession:
    """``key`` identifies the client's directory from which contexts come; ``methods`` are those that it
    implements."""

    id: str
    client: Client
    methods: frozenset[str]
    key: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def supports(self, method: Method[Any, Any]) -> bool:
        return method.path.lower() in self.methods


class ClientSessions:
    """Used on the loop."""

    def __init__(self) -> None:
        self._all: dict[str, ClientSession] = {}
        self._came = asyncio.Condition()

    async def serve(self, identifier: str, key: str, methods: Iterable[str], client: Client) -> None:
        """Run a session, until its connection ends.

        :raises InvalidArgument: an invalid id. :raises Conflict: another session has it.
        """
        session = self._add(identifier, key, methods, client)
        async with self._came:
            self._came.notify_all()
        watching = asyncio.ensure_future(_watch(client))
        try:
            await client.connection.wait_closed()
        finally:
            watching.cancel()
            session.ended.set()
            if self._all.get(identifier) is session:
                del self._all[identifier]

    def check(self, identifier: str) -> None:
        """Check that a session with this id may connect; raises as :meth:`serve`."""
        if not identifier or len(identifier) > _ID_MAX:
            raise InvalidArgument("invalid session: no id")
        known = self._all.get(identifier)
        if known is not None and not known.client.connection.closing:
            raise Conflict(f"session {identifier} already exists")

    def _add(self, identifier: str, key: str, methods: Iterable[str], client: Client) -> ClientSession:
        self.check(identifier)
        session = ClientSession(identifier, client, frozenset(one.lower() for one in methods), key)
        self._all[identifier] = session
        return session

    async def get(self, identifier: str) -> ClientSession:
        """Wait a while for a session. :raises NotFound: it did not connect."""
        if not identifier:
            raise InvalidArgument("a build needs a session")
        try:
            async with asyncio.timeout(PATIENCE), self._came:
                await self._came.wait_for(lambda: identifier in self._all)
                return self._all[identifier]
        except TimeoutError as e:
            raise NotFound(f"no such session: {identifier}") from e


async def _watch(client: Client) -> None:
    """Close the connection of a client that has disappeared without closing it, as clients on other hosts
    can."""
    socket_ = client.connection.peer("socket")
    if socket_ is None or socket_.family == socket.AF_UNIX:
        return  # its end is noticed
    while True:
        await asyncio.sleep(_PING)
        try:
            async with asyncio.timeout(_SILENCE):
                await client.connection.ping()
        except (TimeoutError, RpcError):
            client.connection.close()
            return
