"""HTTP/2 on the API's listeners.
It is imported with the first connection that uses it: others pay nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wherry import threads
from wherry.api.server import ApiServer
from wherry.engine.engine import Engine
from wherry.rpc.detect import Detector

if TYPE_CHECKING:
    from wherry.buildkit.face import Face


class LazyHttp2:
    """See :class:`wherry.api.upgrades.Http2`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._face: Face | None = None
        self._loading = asyncio.Lock()

    async def _loaded(self) -> Face:
        if self._face is None:
            async with self._loading:
                if self._face is None:
                    await self._engine.open_builds()
                    # The imports take a tenth of a second: not on the loop, where all requests would wait.
                    make = await threads.short(_import)
                    self._face = make(self._engine)
        return self._face

    async def protocol(self) -> asyncio.BaseProtocol:
        return (await self._loaded()).protocol()

    async def serve(self, transport: asyncio.Transport, early: bytes) -> None:
        await (await self._loaded()).serve(transport, early)

    async def check_session(self, identifier: str) -> None:
        (await self._loaded()).check_session(identifier)

    async def session(
        self, transport: asyncio.Transport, early: bytes, identifier: str, key: str, methods: Sequence[str]
    ) -> None:
        await (await self._loaded()).session(transport, early, identifier, key, methods)

    async def close(self) -> None:
        if self._face is not None:
            await self._face.close()


def _import() -> type[Face]:
    from wherry.buildkit.face import Face

    return Face


def either(server: ApiServer, http2: LazyHttp2) -> Detector:
    """A connection's first protocol; it recognises HTTP/2 by the first bytes."""
    return Detector(server.http, http2.protocol)
