"""Create, find, list, inspect, rename: what can be done to a container without running it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from msgspec.structs import replace

from wherry.engine import mountspecs, names, normalise
from wherry.engine import secrets as container_secrets
from wherry.engine.attach import AttachOptions, AttachSession
from wherry.engine.attributes import event_attributes
from wherry.engine.devices import Devices
from wherry.engine.events import EventBus
from wherry.engine.holds import Holds
from wherry.engine.links import Links
from wherry.engine.live import LiveSet
from wherry.engine.sandboxes import Sandbox, Sandboxes, port_mappings
from wherry.engine.settings import Settings
from wherry.engine.warmup import expect_start
from wherry.errors import Conflict, InvalidArgument, NotFound, NotImplemented_
from wherry.images.store import ImageStore
from wherry.linux import files
from wherry.logs import options as log_options
from wherry.model import oci
from wherry.model.container import (
    Container,
    ContainerConfig,
    ContainerState,
    HostConfig,
    MountPoint,
    NetworkingConfig,
)
from wherry.model.images import Image
from wherry.model.views import ContainerView
from wherry.network.ports import check_mapping
from wherry.state.containers import ContainerRow as ContainerRow
from wherry.state.containers import Containers
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.secrets import SecretStore


@dataclass(frozen=True)
class CreateRequest:
    """The create endpoint's body and query, decoded."""

    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig
    name: str = ""
    platform: str = ""


@dataclass(frozen=True)
class Created:
    id: str
    warnings: list[str] = field(default_factory=list)


class ContainerService:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        images: ImageStore,
        snapshotter: Snapshotter,
        holds: Holds,
        secrets: SecretStore,
        sandboxes: Sandboxes,
        links: Links,
        devices: Devices,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._images = images
        self._snapshotter = snapshotter
        self._holds = holds
        self._secrets = secrets
        self._sandboxes = sandboxes
        self._links = links
        self._devices = devices
        self._events = events
        self._live = live

    # ---- create ----------------------------------------------------------------------------------------

    async def create(self, request: CreateRequest) -> Created:
        """Make a container that does not run yet.

        Files and rows of its layer and volumes come first and the container's own row last, so that a
        daemon killed in between leaves orphans that the next start sweeps, never a broken container.

        :raises NotFound: no such image. :raises Conflict: the name is taken.
        """
        name = names.check_name(request.name) if request.name else names.random_name(self._name_taken)
        if self._name_taken(name):
            holder = self._containers.find(name)
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        made: list[str] = []
        expect_start()
        warnings: list[str] = []
        row = await asyncio.to_thread(self._make, name, request, made, warnings)
        drivers = {point.name: point.driver for point in row.record.mounts}
        for volume in made:
            self._events.publish("volume", "create", volume, {"driver": drivers[volume]})
        self._events.publish("container", "create", row.id, event_attributes(row))
        return Created(row.id, [*warnings, *self._warnings(row)])

    def _name_taken(self, name: str) -> bool:
        return self._containers.name_exists(name)

    def _make(self, name: str, request: CreateRequest, made: list[str], warnings: list[str]) -> ContainerRow:
        if not request.config.image:
            raise InvalidArgument("invalid container configuration: no image specified")
        platform = oci.parse_platform(request.platform) if request.platform else None
        image = self._images.resolve(request.config.image, platform)
        try:
            return self._make_from(image, name, request, made, warnings)
        except NotFound as e:
            # Clients take "not found" for a missing image and go to pull it.
            raise InvalidArgument(e.message) from e

    def _make_from(
        self, image: Image, name: str, request: CreateRequest, made: list[str], warnings: list[str]
    ) -> ContainerRow:
        host_platform = oci.host()
        if not image.config.platform.satisfies(host_platform):
            raise NotImplemented_(
                f"image {request.config.image} is for {image.config.platform}: running it on "
                f"{host_platform} is not implemented yet"
            )
        config = normalise.check_config(normalise.merge_image(request.config, image.config.config))
        asked = replace(request.host, network_mode="none") if config.network_disabled else request.host
        host = normalise.check_host(asked, self._settings, warnings)
        host, points = self._mounts(container_secrets.resolve(host, self._secrets), config, image)
        container_secrets.check_apart(host, [point.destination for point in points])
        self._check_references(host)
        for mapping in port_mappings(host, []):
            check_mapping(mapping)
        links = self._links.resolve(host)
        self._devices.resolve(host.device_requests or ())
        endpoints = normalise.networks(
            host.network_mode, request.networking.endpoints_config or {}, config.mac_address
        )
        command = [*normalise.as_list(config.entrypoint), *normalise.as_list(config.cmd)]
        container_id = names.new_id()
        with ExitStack() as undo:
            chain_id = self._images.ensure_unpacked(image)
            self._snapshotter.prepare(container_id, chain_id)
            undo.callback(self._snapshotter.remove, container_id)
            directory = self._settings.container_directory(container_id)
            directory.mkdir(parents=True, mode=0o710)
            undo.callback(files.remove_tree, directory)
            record = Container(
                id=container_id,
                created=time.time_ns(),
                image_ref=request.config.image,
                image_id=image.id,
                chain_id=chain_id,
                platform=str(image.config.platform),
                path=command[0],
                args=command[1:],
                config=self._with_hostname(config, host, container_id),
                host_config=host,
                networks=endpoints,
                mounts=[self._holds.take(point, container_id, undo, made) for point in points],
                storage_driver=self._snapshotter.name,
                links=links,
                log_chosen=bool(request.host.log_config.type) or self._settings.log_chosen,
            )
            state = ContainerState()
            self._containers.insert(name, record, state)
            undo.pop_all()
        self._links.added(record)
        return ContainerRow(name, record, state)

    @staticmethod
    def _with_hostname(config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
        if config.hostname or host.network_mode == "host" or host.network_mode.startswith("container:"):
            return config
        return replace(config, hostname=container_id[:12])

    def _mounts(
        self, host: HostConfig, config: ContainerConfig, image: Image
    ) -> tuple[HostConfig, list[MountPoint]]:
        image_volumes = list(image.config.config.volumes or {})
        own = mountspecs.resolve(host, [], [])
        taken = {point.destination for point in own}
        inherited = [p for p in self._volumes_from(host) if p.destination not in taken]
        taken |= {p.destination for p in inherited}
        declared = [*(config.volumes or {}), *image_volumes]
        anonymous = mountspecs.resolve(HostConfig(volume_driver=host.volume_driver), declared, [])
        return host, [*own, *inherited, *(p for p in anonymous if p.destination not in taken)]

    def _volumes_from(self, host: HostConfig) -> list[MountPoint]:
        points: dict[str, MountPoint] = {}
        for text in host.volumes_from or ():
            wanted, _, mode = text.partition(":")
            if mode not in ("", "rw", "ro", "z", "Z"):
                raise InvalidArgument(f"invalid mode: {mode}")
            for point in self._containers.find(wanted).record.mounts:
                if point.type in ("bind", "volume"):
                    points[point.destination] = replace(
                        point, rw=point.rw and mode != "ro", copy_up=False, volume_id=_volume_id(point)
                    )
        return list(points.values())

    def _check_references(self, host: HostConfig) -> None:
        for mode in (host.network_mode, host.ipc_mode, host.pid_mode):
            kind, _, wanted = mode.partition(":")
            if kind == "container" and wanted:
                try:
                    self._containers.find(wanted)
                except NotFound as e:
                    raise InvalidArgument(e.message) from e

    def _warnings(self, row: ContainerRow) -> list[str]:
        host = row.record.host_config
        warnings = []
        if host.privileged and host.cap_drop:
            warnings.append("CapDrop has no effect on a privileged container")
        if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
            warnings.append("Published ports are discarded when using host network mode")
        elif (host.port_bindings or host.publish_all_ports) and self._sandboxes.discards_ports(row):
            warnings.append("Published ports are discarded: none of the networks can publish any")
        return warnings

    # ---- find, list, inspect ---------------------------------------------------------------------------

    def find(self, wanted: str) -> ContainerRow:
        return self._containers.find(wanted)

    def all(self) -> list[ContainerRow]:
        return self._containers.all()

    def inspect(self, wanted: str, *, size: bool = False) -> ContainerView:
        row = self._containers.find(wanted)
        return self.view(row, self._sandboxes.of(row.id), size=size)

    def sandboxes(self) -> dict[str, Sandbox]:
        """Every sandbox by container id, for :meth:`view` of many."""
        return self._sandboxes.all()

    def view(
        self, row: ContainerRow, sandbox: Sandbox | None, *, size: bool = False, image_name: str = ""
    ) -> ContainerView:
        live = self._live.get(row.id)
        usage = self._snapshotter.usage(row.id).bytes if size else None
        running = live.task is not None
        return ContainerView(
            name=row.name,
            record=row.record,
            state=row.state if live.health is None else replace(row.state, health=live.health),
            endpoints=self._sandboxes.endpoints(row, sandbox),
            ports=self._sandboxes.ports(row, sandbox),
            exec_ids=tuple(live.exec_ids),
            image_name=image_name or row.record.config.image,
            directory=str(self._settings.container_directory(row.id)),
            log_path=self._log_path(row),
            sandbox_key=str(sandbox.path) if running and sandbox is not None else "",
            size_rw=usage,
            size_root_fs=None if usage is None else usage + self._image_size(row),
            runtime=row.record.host_config.runtime,
            mounts=tuple(self._holds.named(row.record.mounts)),
            link_names=self._links.names(row.id),
            links=self._links.shown(row) if row.record.links else None,
            log_driver="" if row.record.log_chosen else log_options.DEFAULT_SHOWN,
        )

    def _log_path(self, row: ContainerRow) -> str:
        """Tools take what stands here for JSON lines."""
        is_json = row.record.host_config.log_config.type == "json-file"
        return str(self._settings.json_log_path(row.id)) if is_json else ""

    def _image_size(self, row: ContainerRow) -> int:
        total = 0
        parent: str | None = row.record.chain_id
        while parent is not None:
            total += self._snapshotter.usage(parent).bytes
            parent = self._snapshotter.stat(parent).parent
        return total

    # ---- rename, attach --------------------------------------------------------------------------------

    async def rename(self, wanted: str, name: str) -> None:
        """:raises Conflict: the new name is taken, or is the old one."""
        row = self._containers.find(wanted)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        new = names.check_name(name)
        async with self._live.get(row.id).lock:
            if new == row.name:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            self._containers.rename(row.id, new)
            await asyncio.to_thread(self._sandboxes.rename, row, new)
        renamed = ContainerRow(new, row.record, row.state)
        self._events.publish("container", "rename", row.id, event_attributes(renamed, oldName=f"/{row.name}"))

    def attach(self, wanted: str, options: AttachOptions) -> tuple[ContainerRow, AttachSession]:
        """A session on the running task, or one that waits for the next start.

        :raises Conflict: the container is paused.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if row.state.status == "paused":
            raise Conflict(f"container {row.id} is paused, unpause the container before attach")
        if row.state.status == "restarting":
            raise Conflict(f"container {row.id} is restarting, wait until the container is running")
        session = AttachSession(
            options,
            on_detach=lambda: self._events.publish("container", "detach", row.id, event_attributes(row)),
        )
        if live.task is not None:
            session.connect(live.task.directory)
        else:
            live.pending.append(session)
        self._events.publish("container", "attach", row.id, event_attributes(row))
        return row, session


def _volume_id(point: MountPoint) -> str:
    return point.volume if point.type == "volume" else ""
