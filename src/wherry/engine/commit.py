"""``commit``: a container's files and configuration become an image.

The container is held still while its layer is read, and only then. Its row goes on saying ``running``: a
daemon killed meanwhile thaws it at its next start (see ``reconcile``), as a pause of a user's would say so.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from msgspec.structs import replace

from wherry.engine.attributes import event_attributes
from wherry.engine.changes import parse_changes
from wherry.engine.events import EventBus
from wherry.engine.normalise import as_list, merge_image
from wherry.engine.settings import Settings
from wherry.engine.stillness import Stillness
from wherry.errors import Conflict, Internal, NotFound
from wherry.images import commit as images
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.container import ContainerConfig
from wherry.model.images import Image
from wherry.model.oci import ImageRunConfig
from wherry.state.containers import ContainerRow, Containers
from wherry.storage import diff
from wherry.storage.diff import Change, Writable, Written
from wherry.storage.files_changes import ENGINE_MADE
from wherry.storage.snapshots import Snapshotter

T = TypeVar("T")
_THREADS = 4


@dataclass(frozen=True)
class CommitRequest:
    """``config`` overrides the container's own; ``changes`` are Dockerfile instructions on top of it."""

    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    config: ContainerConfig | None = None


class CommitService:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        images: ImageStore,
        snapshotter: Snapshotter,
        events: EventBus,
        stillness: Stillness,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._images = images
        self._snapshotter = snapshotter
        self._events = events
        self._stillness = stillness
        self._threads = ThreadPoolExecutor(_THREADS, "commit")

    async def commit(self, wanted: str, request: CommitRequest) -> str:
        """The new image's ID.

        :raises NotFound: no such container. :raises InvalidArgument: a malformed name or change.
        :raises Unavailable: the disk is full.
        """
        ref = None
        if request.repository:
            ref = reference.parse(request.repository)
            ref = ref.with_tag(request.tag) if request.tag else ref.with_default_tag()
        row = self._containers.find(wanted)
        if row.state.status in ("removing", "dead"):
            raise Conflict(f"You cannot commit container {row.id} which is being removed")
        parent = await self._in_thread(lambda: self._parent(row))
        step = images.Step(
            created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            created_by=" ".join(as_list(row.record.config.cmd)),
            comment=request.comment,
            author=request.author,
            config=run_config(row.record.config, parent.config.config, request),
        )
        with self._images.leases.hold("commit") as lease:
            async with self._stillness.hold(row, freeze=request.pause):
                layer = await self._in_thread(
                    lambda: images.store_layer(self._images, lambda out: self._layer(row.id, out), lease)
                )
            image = await self._in_thread(
                lambda: images.assemble(self._images, parent, layer, step, ref, lease)
            )
        shown = ref.familiar() if ref is not None else ""
        more = {"comment": request.comment, "imageID": image.id, "imageRef": shown}
        self._events.publish("container", "commit", row.id, event_attributes(row, **more))
        self._events.publish("image", "create", image.id, {"name": shown or image.id})
        if ref is not None:
            self._events.publish("image", "tag", image.id, {"name": shown})
        return image.id

    def _parent(self, row: ContainerRow) -> Image:
        record = row.record
        try:
            return self._images.resolve(record.image_id, oci.parse_platform(record.platform))
        except NotFound as e:
            raise Conflict(f"cannot commit container {row.name}: its image {record.image_id} is gone") from e

    def _layer(self, key: str, out: Writable) -> Written:
        try:
            return diff.write_layer(self._snapshotter, key, out, skip=_is_mount_target)
        except OSError as e:
            raise Internal(f"cannot commit: {e.strerror or e}") from e

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # The context says who asked, for the history of names.
        call = functools.partial(contextvars.copy_context().run, work)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _is_mount_target(change: Change) -> bool:
    """An empty file that was made to mount the engine's own on."""
    status = change.status
    if status is None or change.path not in ENGINE_MADE:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def run_config(own: ContainerConfig, image: ImageRunConfig, request: CommitRequest) -> ImageRunConfig:
    """The new image's configuration, by Docker's rules: the request's, else the container's, changed by the
    instructions; what they leave open is the container's."""
    base = request.config if request.config is not None else own
    changed = parse_changes(request.changes, _as_image(base))
    filled = merge_image(_as_container(changed), _as_image(own))
    merged = _as_image(filled)
    volumes = {**(image.volumes or {}), **(own.volumes or {}), **(changed.volumes or {})}
    return replace(merged, volumes=volumes or None, on_build=changed.on_build)


def _as_image(config: ContainerConfig) -> ImageRunConfig:
    health = config.healthcheck
    return ImageRunConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=as_list(config.entrypoint) or None,
        cmd=as_list(config.cmd) or None,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels or None,
        stop_signal=config.stop_signal or None,
        args_escaped=config.args_escaped,
        healthcheck=replace(health, on_failure="") if health is not None else None,
        shell=config.shell,
        on_build=config.on_build,
    )


def _as_container(config: ImageRunConfig) -> ContainerConfig:
    return ContainerConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        args_escaped=config.args_escaped,
        healthcheck=config.healthcheck,
        shell=config.shell,
    )
