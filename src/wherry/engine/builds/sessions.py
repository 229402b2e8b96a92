"""What a client says before it builds: contexts that it keeps up to date, secrets, a Dockerfile of its own.

A session lives in memory alone, for one build; one that no build takes is forgotten after a while.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from functools import partial

from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.threads import in_thread
from wherry.engine.builds.worker import Inputs
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.storage.contexts import SyncedContext

_MOST = 64
_IDLE = 600.0
_SECRETS_MAX = 512 << 10


@dataclass
class Session:
    id: str
    inputs: Inputs
    synced: dict[str, SyncedContext] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """Used on the loop."""

    def __init__(self, cache: BuildCache) -> None:
        self._cache = cache
        self._all: dict[str, Session] = {}

    async def open(
        self, values: dict[str, bytes], agents: dict[str, str], dockerfile: bytes | None = None
    ) -> str:
        """:param values: secrets by id. :param agents: sockets of SSH agents on this host, by id.
        :param dockerfile: itself, where it is no file of a context.

        :raises Conflict: too many sessions. :raises InvalidArgument: too large.
        """
        if any(len(value) > _SECRETS_MAX for value in values.values()):
            raise InvalidArgument(f"invalid secret: more than {_SECRETS_MAX} bytes")
        now = time.monotonic()
        for session in [s for s in self._all.values() if now - s.used > _IDLE]:
            await self.close(session.id)
        if len(self._all) >= _MOST:
            raise Conflict("too many build sessions are open")
        session = Session(
            secrets.token_hex(16), Inputs(secrets=dict(values), agents=dict(agents), dockerfile=dockerfile)
        )
        self._all[session.id] = session
        return session.id

    def _get(self, session: str) -> Session:
        found = self._all.get(session)
        if found is None:
            raise NotFound(f"No such build session: {session}")
        found.used = time.monotonic()
        return found

    async def compare(self, session: str, name: str, key: str, manifest: bytes) -> list[int] | None:
        """Which files of a context the client must send; ``None`` if it is as it was."""
        held = self._get(session)
        if name in held.synced:
            raise Conflict(f"build context {name!r} was sent already")
        context = await asyncio.to_thread(self._cache.contexts.synced, key)
        held.synced[name] = context
        need = await asyncio.to_thread(context.begin, manifest)
        if context.is_current:
            await asyncio.to_thread(self._ready, held, name, context)
            return None
        return need

    async def receive(self, session: str, name: str, stream: int) -> None:
        """Take the files that were missing. :raises InvalidArgument: not those."""
        held = self._get(session)
        context = held.synced.get(name)
        if context is None or name in held.inputs.contexts:
            raise Conflict(f"build context {name!r} is not waited for")
        await in_thread(partial(context.receive, stream))
        await asyncio.to_thread(self._ready, held, name, context)

    def _ready(self, held: Session, name: str, context: SyncedContext) -> None:
        if context.is_current:
            context.settle()
        held.inputs.contexts[name] = context
        self._cache.note_context(context.id, "local source for context", context.tree.size)

    def take(self, session: str) -> Inputs:
        """For a build; the session must be closed after it. :raises Conflict: a context has not come."""
        held = self._get(session)
        if missing := set(held.synced) - set(held.inputs.contexts):
            raise Conflict(f"build context {min(missing)!r} did not come")
        return held.inputs

    async def close(self, session: str) -> None:
        """Forget it."""
        held = self._all.pop(session, None)
        if held is not None:
            held.inputs.secrets.clear()
            for context in held.synced.values():
                await asyncio.to_thread(context.release)
