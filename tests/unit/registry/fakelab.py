"""A store, and the fake registry with an image in it."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from fakeregistry import FakeRegistry
from image_tools import Library, config, descriptor, tree
from patience import patiently

from wherry.engine.events import EventBus
from wherry.engine.images.pulls import PullService
from wherry.errors import WherryError
from wherry.model import oci, reference
from wherry.registry.config import PrefixRule, Proxies, RegistryConfig
from wherry.registry.distribution import Distribution
from wherry.state.events import EventLog

LAYER = tree(a="1", b="x" * 5000)
BIG = tree(big=os.urandom(600_000).hex())


class Lab:
    """A store, and a registry with one image, ``a/b:1``, of two layers."""

    def __init__(self, library: Library, registry: FakeRegistry) -> None:
        self.library, self.registry = library, registry
        self.config = config([LAYER, BIG])
        self.raw: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": descriptor(self.config, oci.CONFIG),
            "layers": [descriptor(LAYER, oci.LAYER), descriptor(BIG, oci.LAYER)],
        }
        for data in (LAYER, BIG, self.config):
            registry.blob(data)
        self.publish(self.raw)
        self.name = reference.parse(f"{registry.host}/a/b:1")

    def publish(self, raw: dict[str, Any] | bytes, media_type: str = oci.MANIFEST) -> None:
        self.registry.manifest("1", media_type, raw if isinstance(raw, bytes) else json.dumps(raw).encode())

    def pull(
        self, rules: tuple[PrefixRule, ...] = (), name: str = "", proxies: Proxies | None = None
    ) -> list[str]:
        told: list[dict[str, Any]] = []

        async def work() -> None:
            settings = RegistryConfig(
                rules=rules, proxies=proxies or Proxies(), attempts=2, timeout=patiently(1), certificates=()
            )
            distribution = Distribution(settings, self.library.content)
            service = PullService(
                images=self.library.images,
                distribution=distribution,
                events=EventBus(EventLog(self.library.db)),
            )
            wanted = reference.parse(name) if name else self.name
            await service.pull(wanted, platform=None, credentials=(), progress=told.append)

        asyncio.run(work())
        return [str(one.get("status")) for one in told]

    def refused(self, rules: tuple[PrefixRule, ...] = ()) -> str:
        """Why a pull is refused. It must leave nothing behind."""
        with pytest.raises(WherryError) as caught:
            self.pull(rules)
        assert self.registry.host in caught.value.message
        assert "a/b:1" in caught.value.message
        assert self.library.images.list() == []
        assert not self.library.images.moves(self.name)
        assert [i.key for i in self.library.snapshotter.walk() if i.kind != "committed"] == []
        return caught.value.message
