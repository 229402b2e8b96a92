"""``commit``: a container's files and configuration become an image.

The container is frozen only while its layer is read. Its row still says ``running``: if the daemon is killed
meanwhile, the next start sees that no user paused the container, and thaws it (see ``reconcile``).
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from msgspec.structs import replace

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers.normalise import as_list, merge_image
from wherry.engine.containers.stillness import Stillness
from wherry.engine.ground import Ground
from wherry.engine.images.changes import parse_changes
from wherry.engine.images.told import ImageEvents
from wherry.errors import Conflict, Internal, NotFound
from wherry.images import commit as images
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.container import ContainerConfig
from wherry.model.images import Image
from wherry.model.mount import ENGINE_MADE
from wherry.model.oci import ImageRunConfig
from wherry.state.containers import ContainerRow
from wherry.storage import diff
from wherry.storage.diff import PathChange, Writable, Written
from wherry.storage.snapshots import Snapshotter

T = TypeVar("T")


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
        self, ground: Ground, *, images: ImageStore, snapshotter: Snapshotter, stillness: Stillness
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._images = images
        self._snapshotter = snapshotter
        self._events = ground.events
        self._stillness = stillness

    async def commit(self, wanted: str, request: CommitRequest) -> str:
        """Returns the new image's id.

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
        parent = await threads.short(self._parent, row)
        step = images.CommitStep(
            created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            created_by=" ".join(as_list(row.record.config.cmd)),
            comment=request.comment,
            author=request.author,
            config=run_config(row.record.config, parent.config.config, request),
        )
        with self._images.leases.hold("commit") as lease:
            async with self._stillness.hold(row, freeze=request.pause):
                layer = await threads.child(
                    lambda: images.store_layer(self._images, lambda out: self._layer(row.id, out), lease)
                )
            image = await threads.child(
                lambda: images.assemble(self._images, parent, layer, step, ref, lease)
            )
        shown = ref.familiar() if ref is not None else ""
        more = {"comment": request.comment, "imageID": image.id, "imageRef": shown}
        told = ImageEvents(self._events, self._images)
        told.publish("create", image.id, shown or image.id)
        if ref is not None:
            told.publish("tag", image.id, shown)
        self._events.publish("container", "commit", row.id, event_attributes(row, **more))
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


def _is_mount_target(change: PathChange) -> bool:
    """Whether this is an empty file that the engine made, mostly as a mount point."""
    status = change.status
    if status is None or change.path not in ENGINE_MADE:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def run_config(own: ContainerConfig, image: ImageRunConfig, request: CommitRequest) -> ImageRunConfig:
    """The new image's configuration, by Docker's rules: the request's, or else the container's, changed by
    the instructions. Fields that are still empty come from the container."""
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
