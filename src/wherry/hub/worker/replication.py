"""Replication: each rule copies images from another registry (pull) or to it (push).

A run may be interrupted at any moment; the next one continues, and content that is already copied costs one
request. A tag is moved only after all content of its image has been copied. The referrers of an image
(signatures, SBOMs) are copied with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from wherry.errors import NotFound, WherryError
from wherry.hub.core import globs
from wherry.hub.core import manifests as documents
from wherry.hub.core.reach import Rules
from wherry.hub.remote.registry import Registry, RemoteAccount
from wherry.hub.store import content, manifests, replications, repositories, tags
from wherry.hub.store.manifests import Referrer, StoredManifest
from wherry.hub.store.objects import Objects
from wherry.hub.store.replications import PULL, Changes, ReplicationRule
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx, now
from wherry.hub.worker.takeover import Takeover
from wherry.mishaps import reason_of

log = logging.getLogger(__name__)
ACTOR = "(replication)"
_PAGE = 1000


class Replication:
    """Runs the rules that are due. Several workers share the rules; a lease gives each rule to one worker."""

    def __init__(self, db: HubDatabase, objects: Objects, settings: HubSettings, rules: Rules) -> None:
        """:param rules: the addresses that another registry may redirect to."""
        self._db, self._objects, self._settings, self._rules = db, objects, settings, rules

    async def run(self) -> int:
        """Run the rules that are due, and the push rules with changes. :returns: the number of rules that
        ran."""
        rules = await self._db.scan(replications.all_of)
        return sum(await asyncio.gather(*(self._look(rule) for rule in rules)))

    async def _look(self, rule: ReplicationRule) -> int:
        if rule.next_at <= now():
            return await self._take(rule, due=True)
        if rule.direction == PULL or rule.failures:
            return 0  # after a failure the next run is a full run, at the time when it is due
        changes = await self._db.scan(lambda tx: replications.changes(tx, rule))
        return await self._take(rule, due=False, changes=changes) if changes else 0

    async def run_now(self, number: int) -> str:
        """Run a rule to its end. :returns: what it did.

        :raises WherryError: it failed, there is no such rule, or another worker runs it.
        """
        await self._db.read(lambda tx: replications.needed(tx, number))
        rule = await self._db.write(lambda tx: replications.take(tx, number, due=False))
        if rule is None:
            raise NotFound(f"replication {number} is already running")
        return await self._run(rule, None)

    async def _take(self, rule: ReplicationRule, *, due: bool, changes: Changes | None = None) -> int:
        taken = await self._db.write(lambda tx: replications.take(tx, rule.id, due=due))
        if taken is None:
            return 0
        with suppress(WherryError):  # the row and the log have the error
            await self._run(taken, changes)
        return 1

    async def _run(self, rule: ReplicationRule, changes: Changes | None) -> str:
        began, renewing = now(), asyncio.create_task(self._renew(rule.id))
        seen = await self._db.read(replications.newest)
        try:
            account = RemoteAccount(rule.username, rule.password, rule.realm)
            async with Registry(rule.url, account, self._rules) as registry:
                outcome = await self._copy(rule, registry, changes)
        except WherryError as e:
            log.error("replication %d: %s", rule.id, e.message)
            message = e.message
            await self._db.write(lambda tx: replications.failed(tx, rule, message))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._db.write(lambda tx: replications.let_go(tx, rule.id)))
            raise
        except Exception as e:
            reason = reason_of(e)
            await self._db.write(lambda tx: replications.failed(tx, rule, reason))
            raise
        finally:
            renewing.cancel()
        ended = replications.done if changes is None else replications.changes_done
        await self._db.write(lambda tx: ended(tx, rule, began, seen, outcome))
        return outcome

    async def _renew(self, number: int) -> None:
        while True:
            await asyncio.sleep(replications.LEASE / 4)
            await self._db.write(lambda tx: replications.renew(tx, number))

    async def _copy(self, rule: ReplicationRule, registry: Registry, changes: Changes | None) -> str:
        """:raises WherryError: some content could not be copied; the rest was copied."""
        if rule.direction == PULL:
            work = Takeover(
                registry, self._db, self._objects, self._settings, lambda line: log.debug("%s", line),
                tags=rule.tags, here=rule.copy_of, actor=ACTOR,
            )  # fmt: skip
            taken = await work.run(rule.repository)
            _check(taken.failed)
            return f"{taken.tags} tags, {taken.manifests} new manifests, {taken.blobs} new blobs"
        push = ReplicationPush(rule, registry, self._db, self._objects)
        await (push.all() if changes is None else push.changed(changes))
        _check(push.failed)
        return (
            f"{push.tags} tags, {push.manifests} new manifests, {push.blobs} new blobs, {push.gone} deleted"
        )


def _check(failed: list[str]) -> None:
    if failed:
        raise NotFound(f"{len(failed)} failed: {'; '.join(failed[:5])}")


@dataclass
class ReplicationPush:
    """Copies images of this hub to another registry."""

    rule: ReplicationRule
    registry: Registry
    db: HubDatabase
    objects: Objects
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    gone: int = 0
    failed: list[str] = field(default_factory=list)
    _there: set[tuple[str, str]] = field(default_factory=set)
    """(repository, digest) of content that the other registry is known to have."""

    async def all(self) -> None:
        for name in await self.db.scan(self._names):
            last = ""
            while page := await self.db.scan(lambda tx, n=name, after=last: tags.page(tx, n, after, _PAGE)):  # type: ignore[misc]
                await self._tags(name, page)
                last = page[-1]

    def _names(self, tx: Tx) -> list[str]:
        rows = tx.all("SELECT name FROM repository WHERE deleted IS NULL AND proxy_id IS NULL ORDER BY name")
        return [row[0] for row in rows if globs.matches(self.rule.repository, row[0])]

    async def changed(self, changes: Changes) -> None:
        for name, tag in sorted(changes.tags):
            await self._tags(name, [tag])
        for name, digest in sorted(changes.digests):
            await self._try(f"{name}@{digest}", self._digest(name, digest))

    async def _tags(self, name: str, found: Iterable[str]) -> None:
        for tag in found:
            if globs.matches(self.rule.tags, tag):
                await self._try(f"{name}:{tag}", self._tag(name, tag))

    async def _try(self, what: str, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except WherryError as e:
            self.failed.append(f"{what}: {e.message}")

    async def _tag(self, name: str, tag: str) -> None:
        there = self.rule.copy_of(name)
        stored = await self.db.read(lambda tx: manifests.by_tag(tx, name, tag))
        if stored is None:
            if self.rule.deletes:
                await self.registry.delete_tag(there, tag)
                self.gone += 1
            return
        try:
            told = await self.registry.digest(there, tag)
        except NotFound:
            told = ""
        if told != stored.digest:
            await self._manifest(name, stored, tag)
        await self._referrers(name, stored.digest)
        self.tags += 1

    async def _digest(self, name: str, digest: str) -> None:
        """Copy an untagged manifest if it is a referrer of an image that the other registry has."""
        stored = await self.db.read(lambda tx: manifests.by_digest(tx, name, digest))
        if stored is None:
            return
        subject = documents.parse(stored.body, stored.media_type).subject
        if subject and await self._has(self.rule.copy_of(name), subject):
            await self._manifest(name, stored, stored.digest)

    async def _has(self, there: str, digest: str) -> bool:
        if (there, digest) in self._there:
            return True
        try:
            await self.registry.digest(there, digest)
        except NotFound:
            return False
        self._there.add((there, digest))
        return True

    async def _manifest(self, name: str, stored: StoredManifest, reference: str) -> None:
        there, manifest = self.rule.copy_of(name), documents.parse(stored.body, stored.media_type)
        for child in manifest.children:
            member = await self.db.read(lambda tx, d=child.digest: manifests.by_digest(tx, name, d))  # type: ignore[misc]
            if member is not None and not await self._has(there, member.digest):
                await self._manifest(name, member, member.digest)
        for _, blob in manifest.blobs:
            await self._blob(name, there, blob.digest, foreign=blob.foreign)
        await self.registry.push_manifest(there, reference, stored.media_type, stored.body)
        self._there.add((there, stored.digest))
        self.manifests += 1

    async def _blob(self, name: str, there: str, digest: str, *, foreign: bool) -> None:
        if (there, digest) in self._there:
            return
        found = await self.db.read(lambda tx: content.find(tx, name, digest))
        if found is None:
            if foreign:
                return
            raise NotFound(f"blob {digest} is missing in this hub")
        if not await self.registry.has_blob(there, digest):
            pieces = self.objects.read(found.key, 0, found.size - 1)
            await self.registry.push_blob(there, digest, found.size, pieces)
            self.blobs += 1
        self._there.add((there, digest))

    async def _referrers(self, name: str, digest: str) -> None:
        def look(tx: Tx) -> list[Referrer]:
            return manifests.referrers(tx, repositories.needed(tx, name), digest, "", 0, _PAGE)

        for one in await self.db.read(look):
            if not await self._has(self.rule.copy_of(name), one.digest):
                stored = await self.db.read(lambda tx, d=one.digest: manifests.by_digest(tx, name, d))  # type: ignore[misc]
                if stored is not None:
                    await self._manifest(name, stored, one.digest)
