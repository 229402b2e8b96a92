"""Pushers and collectors on the same few digests, without any grace: the worst that can be asked of the
collector.

What is held is the reference's argument: an image never names what is not there, a row means bytes, and bytes
have a row. With no grace a push may find that what it was told of has gone, which is an error it is told of.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import secrets
from collections import Counter

from wherry.hub.core import manifests as documents
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.store import content, manifests, repositories, uploads
from wherry.hub.store.manifests import Push
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Broken, HubDatabase, Tx
from wherry.hub.worker.collector import HubCollector
from wherry.hub.worker.fsck import Fsck

NO_GRACE = HubSettings(grace=0, keep_deleted=0, keep_untagged=0, trash=0, lease=60, public=True)
DATA = [bytes([65 + i]) * (i + 1) for i in range(6)]
NAMES = ["race/a", "race/b", "race/c"]
ADMIN = Principal(account=None, admin=True)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Race:
    def __init__(self, db: HubDatabase, objects: Objects, seed: int) -> None:
        self.db, self.objects = db, objects
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()

    async def push_blob(self, name: str, data: bytes) -> None:
        upload = await self.db.write(lambda tx: uploads.begin(tx, name, None, "sha256", NO_GRACE))
        owner = secrets.token_hex(4)
        assert await self.db.write(lambda tx: uploads.lease(tx, upload, owner, NO_GRACE))
        into = await self.objects.append(upload.key, upload.state, 0)
        await into.write([data])
        state = await into.close()
        await self.objects.finish(upload.key, state, len(data))
        await self.db.write(
            lambda tx: uploads.finish(tx, name, upload, owner, digest(data), len(data), NO_GRACE)
        )
        self.done["blobs"] += 1

    async def mount(self, name: str, data: bytes) -> None:
        source = self.random.choice(NAMES)

        def work(tx: Tx) -> bool:
            repository = repositories.ensure(tx, name, NO_GRACE)
            return content.mount(tx, repository, digest(data), source, ADMIN, NO_GRACE)

        try:
            self.done["mounts"] += await self.db.write(work)
        except Broken:
            self.done["too late to mount"] += 1

    async def push_image(self, name: str, config: bytes, layer: bytes, tag: str) -> None:
        body = json.dumps(
            {
                "schemaVersion": 2,
                "config": {"mediaType": "c", "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": "l", "digest": digest(layer), "size": len(layer)}],
            }
        ).encode()
        manifest = documents.parse(body, "application/vnd.oci.image.manifest.v1+json")
        push = Push(name, digest(body), manifest, body, [tag], None, "race")
        try:
            await self.db.write(lambda tx: manifests.put(tx, push, NO_GRACE))
            self.done["images"] += 1
        except (Refusal, Broken):
            self.done["told that a blob is gone"] += 1

    async def verify(self, name: str, tag: str) -> None:
        """An image that is there has all it names, or is not there any more."""

        def look(tx: Tx) -> tuple[str, list[tuple[str, int]]] | None:
            found = manifests.by_tag(tx, name, tag)
            if found is None:
                return None
            named = documents.parse(found.body, found.media_type).blobs
            return found.digest, [(one.digest, one.size) for _, one in named]

        found = await self.db.read(look)
        if found is None:
            return
        for one, size in found[1]:
            blob = await self.db.read(lambda tx, d=one: content.find(tx, name, d))  # type: ignore[misc]
            there = await self.objects.size(blob.key) if blob is not None else None
            if there != size:
                again = await self.db.read(lambda tx: manifests.by_tag(tx, name, tag))
                same = again is not None and again.digest == found[0]
                assert not same, f"{name}:{tag} names {one}, of which there are {there} bytes"
        self.done["verified"] += 1

    async def pusher(self, rounds: int) -> None:
        for _ in range(rounds):
            name, tag = self.random.choice(NAMES), self.random.choice("xyz")
            config, layer = self.random.choice(DATA), self.random.choice(DATA)
            for data in (config, layer):
                if self.random.random() < 0.3:
                    await self.mount(name, data)
                else:
                    await self.push_blob(name, data)
            await self.push_image(name, config, layer, tag)
            await self.verify(self.random.choice(NAMES), self.random.choice("xyz"))
            if self.random.random() < 0.5:
                await self.delete(self.random.choice(NAMES), self.random.choice("xyz"))

    async def delete(self, name: str, tag: str) -> None:
        def work(tx: Tx) -> bool:
            found = manifests.by_tag(tx, name, tag)
            return found is not None and manifests.delete(tx, name, found.digest, "race", NO_GRACE)

        self.done["deleted"] += await self.db.write(work)

    async def collector(self, ended: asyncio.Event) -> None:
        collector = HubCollector(self.db, self.objects, NO_GRACE)
        while not ended.is_set():
            report = await collector.run()
            self.done.update({f"collected {kind}": count for kind, count in report.gone.items()})
            await asyncio.sleep(0)

    async def run(self, rounds: int, pushers: int = 5, collectors: int = 2) -> Counter[str]:
        for name in NAMES:
            await self.db.write(lambda tx, n=name: repositories.ensure(tx, n, NO_GRACE))  # type: ignore[misc]
        ended = asyncio.Event()
        beside = [asyncio.create_task(self.collector(ended)) for _ in range(collectors)]
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(pushers):
                    group.create_task(self.pusher(rounds))
        finally:
            ended.set()
            await asyncio.gather(*beside)
        return self.done


async def findings(db: HubDatabase, objects: Objects) -> list[str]:
    """What fsck finds wrong, with every byte read again."""
    check = Fsck(db, objects, rate=1 << 40, young=-60)
    return [f"{one.kind} {one.what}: {one.text}" async for one in check.run()]


async def empty(db: HubDatabase, objects: Objects) -> list[str]:
    """Delete every image and collect; what is left of objects."""

    def forget(tx: Tx) -> None:
        for name in NAMES:
            if repositories.find(tx, name) is not None:
                repositories.delete(tx, name)

    await db.write(forget)
    collector = HubCollector(db, objects, NO_GRACE)
    for _ in range(8):
        await collector.run()
    return [one.key async for one in objects.all()]
