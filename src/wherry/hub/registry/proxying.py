"""Content of other registries: fetched once, stored, and served from here even while the other registry is
unavailable.

Manifests are requested by tag or digest. A tag is valid for the proxy's ``ttl``; then a HEAD asks whether it
has moved. Unless the other registry answers "not found", its errors (429, 5xx, no answer) leave the copy in
use, and the response has a ``Warning`` header. A blob is fetched once for all clients that want it
at the same time (:mod:`~wherry.hub.registry.flights`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from wherry.errors import NotFound, Unavailable, WherryError
from wherry.hub.core import digests
from wherry.hub.core import manifests as documents
from wherry.hub.core.reach import Rules
from wherry.hub.core.refusals import Refusal
from wherry.hub.remote.registry import Limited, Registry, RemoteAccount
from wherry.hub.store import proxies, repositories
from wherry.hub.store.manifests import StoredManifest
from wherry.hub.store.proxies import Copy, Proxy
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx

log = logging.getLogger(__name__)
T = TypeVar("T")
_OUTDATED = '299 - "this is a copy: the other registry does not answer"'
"""As the specification wants warnings ("Warnings"): this code, no agent, no date."""


@dataclass(frozen=True)
class Served:
    """:ivar warning: the reason why it may be outdated; empty if it is current."""

    stored: StoredManifest
    warning: str = ""


class Once:
    """Running work by its key: callers with the same key wait for the same work."""

    def __init__(self) -> None:
        self._tasks: dict[object, asyncio.Task[Any]] = {}

    async def run(self, what: object, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the work that runs for ``what``; starts ``work`` if none runs. The work continues if
        its caller is cancelled."""
        task = self._tasks.get(what)
        if task is None:

            async def do() -> T:
                try:
                    return await work()
                finally:
                    del self._tasks[what]

            task = self._tasks[what] = asyncio.create_task(do())
            task.add_done_callback(_retrieved)
        outcome: T = await asyncio.shield(task)
        return outcome

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieved(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # the waiting callers receive it; if there are none, it is not needed


class HubProxies:
    """Connections to other registries, for this process. :meth:`close` cancels running work."""

    def __init__(self, db: HubDatabase, settings: HubSettings, rules: Rules) -> None:
        self._db, self._settings, self._rules = db, settings, rules
        self._registries: dict[Proxy, Registry] = {}
        self._once = Once()

    async def close(self) -> None:
        await self._once.stop()
        for registry in self._registries.values():
            await registry.close()

    async def of(self, name: str) -> Proxy | None:
        return await self._db.read(lambda tx: proxies.of(tx, name))

    def registry(self, proxy: Proxy) -> Registry:
        """The connections to a proxy's registry; a changed proxy gets new ones."""
        made = self._registries.get(proxy)
        if made is None:
            made = Registry(
                proxy.url, RemoteAccount(proxy.username, proxy.password, proxy.realm), self._rules
            )
            self._registries[proxy] = made
        return made

    # manifests

    async def manifest(self, proxy: Proxy, name: str, reference: str) -> Served:
        """:raises Refusal: the other registry does not have it, or does not answer and there is no copy."""
        if ":" in reference:
            digests.check(reference)
            served = await self._by_digest(proxy, name, reference)
        else:
            served = await self._once.run(
                ("tag", proxy.id, name, reference), lambda: self._by_tag(proxy, name, reference)
            )
        return served

    async def _by_digest(self, proxy: Proxy, name: str, digest: str) -> Served:
        copy = await self._copy(name, digest)
        if copy is not None:
            return Served(copy.stored)
        try:
            return Served(
                await self._once.run(
                    ("manifest", proxy.id, name, digest), lambda: self._fetch(proxy, name, digest)
                )
            )
        except Unavailable as e:
            raise away(e) from e

    async def _by_tag(self, proxy: Proxy, name: str, tag: str) -> Served:
        known = await self._db.read(lambda tx: proxies.tag(tx, name, tag))
        copy = await self._copy(name, known.digest) if known is not None else None
        if known is not None and copy is not None and known.checked > time.time() - proxy.ttl:
            return Served(copy.stored)
        try:
            if copy is not None and await self._still(proxy, name, tag, copy):
                return Served(copy.stored)
            stored = await self._fetch(proxy, name, tag)
        except Refusal:
            await self._db.write(lambda tx: proxies.untag(tx, name, tag))
            raise
        except Unavailable as e:
            if copy is None:
                raise away(e) from e
            log.warning("serving an old copy of %s:%s: %s", name, tag, e.message)
            return Served(copy.stored, _OUTDATED)
        return Served(stored)

    async def _still(self, proxy: Proxy, name: str, tag: str, copy: Copy) -> bool:
        """Ask the other registry whether the tag still has this digest, and record the answer."""
        try:
            told = await self.registry(proxy).digest(proxy.upstream_name(name), tag)
        except NotFound as e:
            raise unknown(tag) from e
        if told != copy.stored.digest:
            return False
        await self._db.write(lambda tx: proxies.checked(tx, copy.stored.repository, tag, told))
        return True

    async def _copy(self, name: str, digest: str) -> Copy | None:
        """The stored copy. Its use is recorded, at most once an hour."""
        copy = await self._db.read(lambda tx: proxies.manifest(tx, name, digest))
        if copy is not None and proxies.is_worth_noting(copy.used):
            blobs = _blobs(copy.stored)
            stored = copy.stored
            await self._db.write(
                lambda tx: proxies.note_use(tx, stored.repository, digest, blobs, self._settings)
            )
        return copy

    async def _fetch(self, proxy: Proxy, name: str, reference: str) -> StoredManifest:
        """:raises Refusal: the other registry does not have it, or sent an invalid manifest.
        :raises Unavailable:
        """
        try:
            kind, body = await self.registry(proxy).manifest(proxy.upstream_name(name), reference)
        except NotFound as e:
            raise unknown(reference) from e
        by_digest = ":" in reference
        digest = digests.of(body, digests.algorithm_of(reference) if by_digest else digests.CANONICAL)
        if by_digest and digest != reference:
            raise Unavailable(f"{proxy.url} sent content with another digest for {reference}")
        try:
            manifest = documents.parse(body, kind)
        except Refusal as e:
            raise Unavailable(f"{proxy.url} sent an invalid manifest for {reference}: {e.message}") from e

        def write(tx: Tx) -> StoredManifest:
            repository = proxies.ensure(tx, proxy, name, self._settings)
            proxies.put(tx, repository, digest, manifest.media_type, body)
            if not by_digest:
                proxies.checked(tx, repository.id, reference, digest)
            return StoredManifest(0, repository.id, digest, manifest.media_type, body)

        return await self._db.write(write)

    # lists

    async def tags(self, proxy: Proxy, name: str) -> list[str]:
        """All tags of the other registry, in byte order. If it does not answer: the tags that were pulled
        through this hub."""
        try:
            return await self._once.run(("tags", proxy.id, name), lambda: self._tags(proxy, name))
        except NotFound as e:
            raise repositories.unknown(name) from e
        except Unavailable:
            return await self._db.read(lambda tx: proxies.tags(tx, name))

    async def _tags(self, proxy: Proxy, name: str) -> list[str]:
        found = [tag async for tag in self.registry(proxy).tags(proxy.upstream_name(name))]
        return sorted(found)

    async def referrers(self, proxy: Proxy, name: str, digest: str, artifact_type: str) -> bytes | None:
        """The other registry's index of referrers; None if it has none.

        :raises Refusal: the other registry does not answer.
        """
        try:
            return await self.registry(proxy).referrers(proxy.upstream_name(name), digest, artifact_type)
        except NotFound:
            return None
        except Unavailable as e:
            raise away(e) from e


def _blobs(stored: StoredManifest) -> list[str]:
    return [blob.digest for _, blob in documents.parse(stored.body, stored.media_type).blobs]


def unknown(reference: str) -> Refusal:
    return Refusal("MANIFEST_UNKNOWN", "manifest unknown", detail={"reference": reference[:140]})


def away(error: WherryError) -> Refusal:
    """The error if the other registry does not answer and there is no copy."""
    if isinstance(error, Limited):
        headers = {"Retry-After": error.retry_after} if error.retry_after else {}
        return Refusal("TOOMANYREQUESTS", f"the other registry: {error.message}", headers=headers)
    return Refusal(
        "UNAVAILABLE", f"the other registry: {error.message}", status=502, headers={"Retry-After": "10"}
    )
