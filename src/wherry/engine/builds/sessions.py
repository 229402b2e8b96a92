"""What a client sends before a build: contexts that are kept in sync, secrets, a Dockerfile of its own.

A session exists only in memory, for one build. A session that no build uses is dropped after a while.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from wherry import threads
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.given import Given
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.storage.confined.children import Ending
from wherry.storage.contexts import SyncedContext, release_all

_MOST = 64
_IDLE = 600.0
_SECRETS_MAX = 512 << 10


@dataclass
class BuildSession:
    id: str
    given: Given
    synced: dict[str, SyncedContext] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)
    """Contexts that a request is using at this moment."""
    used: float = field(default_factory=time.monotonic)


class BuildSessions:
    """Used on the loop."""

    def __init__(self, cache: BuildCache) -> None:
        self._cache = cache
        self._all: dict[str, BuildSession] = {}

    async def open(
        self, values: dict[str, bytes], agents: dict[str, str], dockerfile: bytes | None = None
    ) -> str:
        """:param values: secrets by id. :param agents: sockets of SSH agents on this host, by id.
        :param dockerfile: its content, if it is not a file of the context.

        :raises Conflict: too many sessions. :raises InvalidArgument: too large.
        """
        if any(len(value) > _SECRETS_MAX for value in values.values()):
            raise InvalidArgument(f"invalid secret: more than {_SECRETS_MAX} bytes")
        now = time.monotonic()
        for session in [s for s in self._all.values() if now - s.used > _IDLE]:
            await self.close(session.id)
        if len(self._all) >= _MOST:
            raise Conflict("too many build sessions are open")
        session = BuildSession(
            secrets.token_hex(16), Given(secrets=dict(values), agents=dict(agents), text=dockerfile)
        )
        self._all[session.id] = session
        return session.id

    def _get(self, session: str) -> BuildSession:
        found = self._all.get(session)
        if found is None:
            raise NotFound(f"No such build session: {session}")
        found.used = time.monotonic()
        return found

    async def compare(self, session: str, name: str, key: str, manifest: bytes) -> list[int] | None:
        """The files of a context that the client must send; ``None`` if nothing has changed."""
        held = self._get(session)
        if name in held.synced:
            raise Conflict(f"build context {name!r} was sent already")
        context = await threads.short(self._cache.contexts.synced, key)
        held.synced[name] = context
        held.coming.add(name)
        try:
            need = await threads.disk(context.begin, manifest)
        except BaseException:
            # Do not wait for it: the client may try again with a valid manifest.
            held.synced.pop(name, None)
            await threads.disk.surely(context.release)
            raise
        finally:
            held.coming.discard(name)
        if context.is_current:
            await threads.disk(self._ready, held, name, context)
            return None
        return need

    async def receive(self, session: str, name: str, stream: int) -> None:
        """Receive the files that were missing. :raises InvalidArgument: other files were sent."""
        held = self._get(session)
        context = held.synced.get(name)
        if context is None or name in held.given.contexts or name in held.coming:
            raise Conflict(f"build context {name!r} is not waited for")
        ending = Ending()
        held.coming.add(name)
        try:
            await threads.waits.until(ending.end, context.receive, stream, ending)
            await threads.disk(self._ready, held, name, context)
        finally:
            held.coming.discard(name)

    def _ready(self, held: BuildSession, name: str, context: SyncedContext) -> None:
        if context.is_current:
            context.settle()
        held.given.contexts[name] = context
        self._cache.note_context(context.id, "local source for context", context.tree.size)

    def take(self, session: str) -> Given:
        """Use a session for a build, and close it afterwards. :raises Conflict: a context has not arrived."""
        held = self._get(session)
        if missing := set(held.synced) - set(held.given.contexts):
            raise Conflict(f"build context {min(missing)!r} did not come")
        return held.given

    async def close(self, session: str) -> None:
        """Drop the session."""
        held = self._all.pop(session, None)
        if held is not None:
            held.given.secrets.clear()
            contexts = list(held.synced.values())
            await threads.disk.surely(release_all, contexts)
