"""Copies images from a :class:`~wherry.hub.worker.sources.RegistrySource` while both registries serve
clients.

Existing content is not fetched again, so an import can be repeated: after an interruption, and once more when
clients use this hub. A tag is moved only after all content of its image has arrived; every digest is checked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from wherry.errors import NotFound, Unavailable, WherryError
from wherry.hub.core import digests, globs, names
from wherry.hub.core import manifests as documents
from wherry.hub.core.manifests import ParsedManifest
from wherry.hub.store import content, events, manifests, repositories
from wherry.hub.store.landing import Landing
from wherry.hub.store.manifests import Push
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx
from wherry.hub.worker.sources import RegistrySource

log = logging.getLogger(__name__)
ACTOR = "(import)"


@dataclass
class Taken:
    repositories: int = 0
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    size: int = 0
    failed: list[str] = field(default_factory=list)


class Takeover:
    def __init__(
        self, source: RegistrySource, db: HubDatabase, objects: Objects, settings: HubSettings,
        told: Callable[[str], None], *, tags: str = "*", here: Callable[[str], str] = str,
        actor: str = ACTOR,
    ) -> None:  # fmt: skip
        """:param told: called with a line for each copied repository.
        :param tags: a pattern of tags. :param here: maps a name in the source to the name in this hub."""
        self._tags, self._here, self._actor = tags, here, actor
        self._source, self._db, self._objects, self._told = source, db, objects, told
        self._settings = settings
        self.taken = Taken()

    async def run(self, pattern: str) -> Taken:
        """Copy the repositories that match ``pattern``. Failures are recorded, and the rest continues."""
        async for name in self._names(pattern):
            try:
                names.check_repository(self._here(name))
                await self._repository(name)
            except WherryError as e:
                self.taken.failed.append(f"{name}: {e.message}")
        return self.taken

    async def _names(self, pattern: str) -> AsyncIterator[str]:
        if "*" not in pattern:
            yield pattern  # many registries do not list their repositories
            return
        async for name in self._source.repositories():
            if globs.matches(pattern, name):
                yield name

    async def _repository(self, name: str) -> None:
        here = self._here(name)
        await self._db.write(lambda tx: repositories.ensure(tx, here, self._settings))
        count = 0
        if self._tags == "*":
            async for digest in self._source.untagged(name):
                await self._reference(name, digest)
        async for tag in self._source.tags(name):
            if not globs.matches(self._tags, tag):
                continue
            count += await self._reference(name, tag)
        self.taken.repositories += 1
        self.taken.tags += count
        self._told(f"{name}: {count} tags")

    async def _reference(self, name: str, reference: str) -> bool:
        """Copy a tag or a digest with everything below it. :returns: whether it succeeded."""
        try:
            kind, body = await self._source.manifest(name, reference)
            await self._manifest(name, reference, kind, body)
        except WherryError as e:
            self.taken.failed.append(f"{name}:{reference}: {e.message}")
            return False
        return True

    async def _manifest(self, name: str, reference: str, kind: str, body: bytes) -> None:
        manifest = documents.parse(body, kind)
        by_digest = ":" in reference
        digest = digests.of(body, digests.algorithm_of(reference) if by_digest else digests.CANONICAL)
        if by_digest and digest != reference:
            raise Unavailable(f"the source sent content with another digest for {reference}")
        if await self._is_there(name, digest):
            if not by_digest:
                await self._put(name, digest, manifest, body, [reference])
            return
        for child in manifest.children:
            try:
                child_kind, child_body = await self._source.manifest(name, child.digest)
            except NotFound:
                continue  # a sparse index at the source stays one here
            await self._manifest(name, child.digest, child_kind, child_body)
        for _, blob in manifest.blobs:
            await self._blob(name, blob.digest, foreign=blob.foreign)
        await self._put(name, digest, manifest, body, [] if by_digest else [reference])
        self.taken.manifests += 1

    async def _is_there(self, name: str, digest: str) -> bool:
        here = self._here(name)
        return await self._db.read(lambda tx: manifests.by_digest(tx, here, digest)) is not None

    async def _put(
        self, name: str, digest: str, manifest: ParsedManifest, body: bytes, tags: list[str]
    ) -> None:
        here = self._here(name)
        push = Push(here, digest, manifest, body, tags, None, self._actor)

        def write(tx: Tx) -> None:
            known = manifests.by_tag(tx, here, tags[0]) if tags else manifests.by_digest(tx, here, digest)
            if known is not None and known.digest == digest:
                return  # nothing changes, so there is no event
            manifests.put(tx, push, self._settings)
            events.note(
                tx, self._actor, "", "manifest.push", here,
                digest=digest, tags=tags, media_type=manifest.media_type,
            )  # fmt: skip

        await self._db.write(write)

    async def _blob(self, name: str, digest: str, *, foreign: bool) -> None:
        if await self._db.write(lambda tx: self._known(tx, self._here(name), digest)):
            return
        try:
            await self._fetch(name, digest)
        except NotFound:
            if not foreign:
                raise

    def _known(self, tx: Tx, name: str, digest: str) -> bool:
        """Whether the repository has the blob. If another repository has it, link it: the operator may read
        everything."""
        repository = repositories.needed(tx, name)
        found = content.by_digest(tx, digest)
        if found is None:
            return False
        content.link(tx, repository, found.id, found.size, self._settings)
        return True

    async def _fetch(self, name: str, digest: str) -> None:
        landing = Landing(self._db, self._objects, self._settings, repository=self._here(name), digest=digest)
        await landing.begin()
        self.taken.size += await landing.receive(self._source.blob(name, digest))
        self.taken.blobs += 1
