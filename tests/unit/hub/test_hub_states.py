"""Any order of pushes, mounts, deletions, reverts and collections on two replicas, held against a model.

The replicas are two databases on one file, each with a collector; times stand still and are moved by the
test. What the model knows: which tags name which images, what was deleted and when, and what was promised
to whom until when.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from wherry.hub.core import manifests as documents
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.store import collect, content, manifests, repositories, schema, sql, tags, uploads
from wherry.hub.store.files import Files
from wherry.hub.store.manifests import Push
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx
from wherry.hub.store.sqlite import Sqlite
from wherry.hub.worker.collector import HubCollector
from wherry.hub.worker.fsck import Fsck

T = TypeVar("T")
HOUR = 3600
TIMES = HubSettings(grace=2 * HOUR, keep_deleted=5 * HOUR, keep_untagged=5 * HOUR, trash=HOUR, lease=60)
REPOSITORIES = ["m/a", "m/b"]
DATA = [b"one", b"two!", b"three"]
TAGS = ["x", "y"]
ADMIN = Principal(account=0, admin=True)
repository = st.sampled_from(REPOSITORIES)
data = st.sampled_from(DATA)
tag = st.sampled_from(TAGS)
replica = st.integers(0, 1)


def digest(content_: bytes) -> str:
    return "sha256:" + hashlib.sha256(content_).hexdigest()


class Hub(RuleBasedStateMachine):
    images = Bundle("images")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.base = tempfile.TemporaryDirectory()
        self.clock = 1_000_000
        self.real = sql.now
        for module in (collect, content, manifests, repositories, tags, uploads):
            module.now = lambda: self.clock  # type: ignore[attr-defined]
        root = Path(self.base.name)
        self.replicas = [Sqlite(root / "hub.db") for _ in range(2)]
        self.objects = Files(root)
        self.tagged: dict[tuple[str, str], str] = {}
        self.promised: dict[tuple[str, bytes], int] = {}

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.loop.run_until_complete(run())

    def write(self, which: int, work: Callable[[Tx], T]) -> T:
        return self.wait(self.replicas[which].write(work))

    @initialize()
    def begin(self) -> None:
        self.wait(schema.migrate(self.replicas[0]))
        for name in REPOSITORIES:
            self.write(0, lambda tx, n=name: repositories.ensure(tx, n, TIMES))  # type: ignore[misc]

    def teardown(self) -> None:
        for db in self.replicas:
            self.wait(db.close())
        self.loop.close()
        for module in (collect, content, manifests, repositories, tags, uploads):
            module.now = self.real  # type: ignore[attr-defined]
        self.base.cleanup()

    @rule(name=repository, data=data, which=replica)
    def push_blob(self, name: str, data: bytes, which: int) -> None:
        upload = self.write(which, lambda tx: uploads.begin(tx, name, None, "sha256", TIMES))
        assert self.write(which, lambda tx: uploads.lease(tx, upload, "me", TIMES))

        async def store() -> None:
            into = await self.objects.append(upload.key, "", 0)
            await into.write([data])
            await self.objects.finish(upload.key, await into.close(), len(data))

        self.wait(store())
        self.write(
            1 - which, lambda tx: uploads.finish(tx, name, upload, "me", digest(data), len(data), TIMES)
        )
        self.promised[name, data] = self.clock + TIMES.grace

    @rule(name=repository, source=repository, data=data, which=replica)
    def mount(self, name: str, source: str, data: bytes, which: int) -> None:
        there = self.write(which, lambda tx: content.find(tx, source, digest(data))) is not None

        def work(tx: Tx) -> bool:
            place = repositories.needed(tx, name)
            return content.mount(tx, place, digest(data), source, ADMIN, TIMES)

        assert self.write(which, work) is there
        if there:
            self.promised[name, data] = self.clock + TIMES.grace

    @rule(target=images, name=repository, config=data, layer=data, tag=tag, which=replica)
    def push_image(self, name: str, config: bytes, layer: bytes, tag: str, which: int) -> object:
        body = json.dumps(
            {
                "schemaVersion": 2,
                "config": {"mediaType": "c", "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": "l", "digest": digest(layer), "size": len(layer)}],
            }
        ).encode()
        manifest = documents.parse(body, "application/vnd.oci.image.manifest.v1+json")
        push = Push(name, digest(body), manifest, body, [tag], None, "model")
        there = all(
            self.write(which, lambda tx, d=d: content.find(tx, name, digest(d))) is not None  # type: ignore[misc]
            for d in (config, layer)
        )
        try:
            self.write(which, lambda tx: manifests.put(tx, push, TIMES))
        except Refusal as e:
            assert e.code == "MANIFEST_BLOB_UNKNOWN" and not there
            return multiple()
        assert there
        self.tagged[name, tag] = push.digest
        return name, push.digest

    @rule(name=repository, tag=tag, which=replica)
    def delete_tag(self, name: str, tag: str, which: int) -> None:
        gone = self.write(which, lambda tx: tags.delete(tx, name, tag, "model", TIMES))
        assert gone is (self.tagged.pop((name, tag), None) is not None)

    @rule(image=images, which=replica)
    def delete_image(self, image: tuple[str, str], which: int) -> None:
        name, one = image
        self.write(which, lambda tx: manifests.delete(tx, name, one, "model", TIMES))
        self.tagged = {key: value for key, value in self.tagged.items() if (key[0], value) != image}

    @rule(image=images, tag=tag, which=replica)
    def revert(self, image: tuple[str, str], tag: str, which: int) -> None:
        name, one = image

        def work(tx: Tx) -> None:
            manifests.undelete(tx, name, one)
            tags.revert(tx, name, tag, one, None, "model", TIMES)

        try:
            self.write(which, work)
        except Refusal:
            assert one not in [value for key, value in self.tagged.items() if key[0] == name]
        else:
            self.tagged[name, tag] = one

    @rule(name=repository, data=data, which=replica)
    def delete_blob(self, name: str, data: bytes, which: int) -> None:
        try:
            self.write(which, lambda tx: content.hide(tx, name, digest(data)))
        except content.Named:
            return
        self.promised.pop((name, data), None)

    @rule(hours=st.integers(1, 4))
    def time_passes(self, hours: int) -> None:
        self.clock += hours * HOUR

    @rule(which=replica)
    def collect(self, which: int) -> None:
        self.wait(HubCollector(self.replicas[which], self.objects, TIMES).run())

    @invariant()
    def tags_name_what_they_should(self) -> None:
        for name in REPOSITORIES:
            for tag in TAGS:
                found = self.wait(self.replicas[0].read(lambda tx, n=name, t=tag: manifests.by_tag(tx, n, t)))  # type: ignore[misc]
                assert (found.digest if found else None) == self.tagged.get((name, tag)), (name, tag)

    @invariant()
    def promises_are_kept(self) -> None:
        for (name, data), until in self.promised.items():
            if until > self.clock:
                found = self.wait(
                    self.replicas[1].read(lambda tx, n=name, d=data: content.find(tx, n, digest(d)))  # type: ignore[misc]
                )
                assert found is not None, (name, data)

    @invariant()
    def rows_and_objects_agree(self) -> None:
        async def look() -> list[str]:
            check = Fsck(self.replicas[0], self.objects, rate=1 << 40, young=-60)
            return [f"{one.kind} {one.what}: {one.text}" async for one in check.run()]

        assert self.wait(look()) == []


Hub.TestCase.settings = settings(
    max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHub = Hub.TestCase
