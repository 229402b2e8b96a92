"""Lists of many containers: what is read once a list, and what is decoded once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
from databases import open_database

from wherry.engine.containers.listing import ListingService, ListOptions
from wherry.model.container import Container, ContainerConfig, ContainerState, Health, HostConfig
from wherry.model.digest import Digest
from wherry.state.containers import Containers
from wherry.state.schema import MIGRATIONS

IMAGE = Digest("sha256:" + "0" * 64)


def containers(count: int) -> Containers:
    made = Containers(open_database(":memory:", MIGRATIONS))
    for number in range(count):
        record = Container(
            id=f"{number:064x}",
            created=number + 1,
            image_ref="busybox",
            image_id=IMAGE,
            chain_id=None,
            platform="linux/amd64",
            path="x",
            args=[],
            config=ContainerConfig(),
            host_config=HostConfig(),
            networks={},
            mounts=[],
            storage_driver="overlay",
        )
        made.insert(f"c{number}", record, ContainerState(status="running"))
    return made


class Images:
    def __init__(self) -> None:
        self.asked = 0

    def find(self, text: str) -> Any:
        self.asked += 1
        return SimpleNamespace(digest=IMAGE)


class Service:
    """As much of the container service as a list asks for."""

    def __init__(self, rows: Containers) -> None:
        self.all = rows.all

    def sandboxes(self) -> dict[str, Any]:
        return {}

    def view(self, row: Any, _sandbox: Any, *, image_name: str) -> Any:
        return SimpleNamespace(name=row.name, image_name=image_name, mounts=(), endpoints=(), ports=())


def test_an_image_is_looked_up_once_a_list() -> None:
    images = Images()
    service = ListingService(containers=Service(containers(50)), images=images)  # type: ignore[arg-type]
    found = asyncio.run(service.listed(ListOptions()))
    assert {view.image_name for view in found} == {"busybox"}
    assert (len(found), images.asked) == (50, 1)


def test_the_health_filter() -> None:
    rows = containers(3)
    for number, status in enumerate(("healthy", "unhealthy")):
        health = Health(status=status)  # type: ignore[arg-type]
        rows.set_state(f"{number:064x}", ContainerState(status="running", health=health))
    service = ListingService(containers=Service(rows), images=Images())  # type: ignore[arg-type]

    def named(*values: str) -> list[str]:
        return sorted(
            view.name for view in asyncio.run(service.listed(ListOptions(filters={"health": values})))
        )

    assert named("healthy") == ["c0"]
    assert named("unhealthy", "healthy") == ["c0", "c1"]
    assert named("none") == ["c2"]
    assert named("starting") == []


def test_a_record_is_decoded_again_only_when_it_changed() -> None:
    rows = containers(2)
    first, second = rows.all()
    again = rows.all()
    assert again[0].record is first.record and again[1].record is second.record
    changed = msgspec.structs.replace(first.record, path="y")
    rows.set_record(changed)
    assert [row.record.path for row in rows.all()] == ["y", "x"]
    rows.delete(first.id)
    assert [row.id for row in rows.all()] == [second.id]
