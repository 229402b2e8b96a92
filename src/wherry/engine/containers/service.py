"""Create, find, list, inspect, rename: the operations that do not run a container."""

from __future__ import annotations

import dataclasses
import posixpath
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from msgspec.structs import replace

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import bundle, descriptions, names, normalise
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.links import Links
from wherry.engine.containers.sandboxes import Sandbox, Sandboxes, port_mappings
from wherry.engine.containers.warmup import expect_start
from wherry.engine.ground import Ground, Stores
from wherry.engine.mounts import specs
from wherry.engine.mounts.holds import Holds
from wherry.engine.volumes import secrets as container_secrets
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.linux import files, unsettled
from wherry.logs import options as log_options
from wherry.model import oci
from wherry.model.container import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointRequest,
    HostConfig,
    MountPoint,
    NetworkingConfig,
)
from wherry.model.images import Image
from wherry.model.views import ContainerView
from wherry.network.ports import check_mapping
from wherry.state.containers import ContainerRow as ContainerRow


@dataclass(frozen=True)
class CreateRequest:
    """The create endpoint's body and query, decoded.

    :ivar readonly_recursive: the default for read-only binds: whether mounts below them are read-only too.
    """

    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig
    name: str = ""
    platform: str = ""
    readonly_recursive: bool = True


@dataclass(frozen=True)
class Created:
    id: str
    warnings: list[str] = field(default_factory=list)


class ContainerService:
    def __init__(
        self,
        ground: Ground,
        stores: Stores,
        *,
        holds: Holds,
        sandboxes: Sandboxes,
        links: Links,
        devices: Devices,
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._images = stores.images
        self._snapshotter = stores.snapshotter
        self._holds = holds
        self._secrets = stores.secrets
        self._sandboxes = sandboxes
        self._links = links
        self._devices = devices
        self._events = ground.events
        self._live = ground.live

    # ---- create ----------------------------------------------------------------------------------------

    async def create(self, request: CreateRequest) -> Created:
        """Create a container without starting it.

        Files and rows of its layer and volumes come first, and the container's own row last. Until that row
        exists everything is marked (:mod:`wherry.linux.unsettled`): if the daemon is killed in between, its
        next start recognises the leftovers by the mark and sweeps them.

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
        row = await threads.runtime(self._make, name, request, made, warnings)
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
        try:
            image = self._images.resolve(request.config.image, platform)
        except NotFound:
            # A client pulls the image now. Say first what would refuse the container also with it.
            normalise.check_host(request.host, self._settings, [])
            specs.resolve(request.host, [], [])
            raise
        try:
            return self._make_from(image, name, request, made, warnings)
        except NotFound as e:
            # Clients understand "not found" as a missing image, and pull it.
            raise InvalidArgument(e.message) from e

    def _make_from(
        self, image: Image, name: str, request: CreateRequest, made: list[str], warnings: list[str]
    ) -> ContainerRow:
        if not request.platform:
            warnings += _platform_warning(image)
        config = normalise.check_config(normalise.merge_image(request.config, image.config.config))
        asked = replace(request.host, network_mode="none") if config.network_disabled else request.host
        host = normalise.check_host(asked, self._settings, warnings)
        normalise.check_network_mode(request.config, host)
        host = container_secrets.resolve(host, self._secrets)
        points = self._mounts(host, config, image, readonly_recursive=request.readonly_recursive)
        container_secrets.check_apart(host, [point.destination for point in points])
        for mapping in port_mappings(host, []):
            check_mapping(mapping)
        links = self._links.resolve(host)
        self._devices.resolve(host.device_requests or ())
        endpoints = self._endpoints(host, config, request)
        host = self._with_ids(host)
        command = [*normalise.as_list(config.entrypoint), *normalise.as_list(config.cmd)]
        container_id = names.new_id()
        with ExitStack() as undo:
            chain_id = self._images.ensure_unpacked(image)
            self._snapshotter.prepare(container_id, chain_id)
            undo.callback(self._snapshotter.remove, container_id)
            directory = self._settings.container_directory(container_id)
            directory.mkdir(parents=True, mode=0o710)
            undo.callback(files.remove_tree, directory)
            unsettled.mark(directory)
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
                image_manifest=image.manifest_descriptor,
                log_chosen=bool(request.host.log_config.type) or self._settings.log_chosen,
            )
            bundle.first_workdir(record, self._settings, self._snapshotter)
            state = ContainerState()
            descriptions.write(self._settings, name, record)
            self._containers.insert(name, record, state)
            undo.pop_all()
        self._holds.settle(record)
        unsettled.settle(directory)
        self._links.added(record)
        return ContainerRow(name, record, state)

    def _endpoints(
        self, host: HostConfig, config: ContainerConfig, request: CreateRequest
    ) -> dict[str, EndpointRequest]:
        endpoints = normalise.networks(
            host.network_mode,
            request.networking.endpoints_config or {},
            config.mac_address,
            no_bridge=self._settings.no_bridge,
        )
        self._sandboxes.check_endpoints(endpoints, config.mac_address)
        return endpoints

    @staticmethod
    def _with_hostname(config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
        if config.hostname or host.network_mode == "host" or host.network_mode.startswith("container:"):
            return config
        return replace(config, hostname=container_id[:12])

    def _mounts(
        self, host: HostConfig, config: ContainerConfig, image: Image, *, readonly_recursive: bool
    ) -> list[MountPoint]:
        image_volumes = list(image.config.config.volumes or {})
        own = specs.resolve(host, [], [], readonly_recursive=readonly_recursive)
        taken = {point.destination for point in own}
        inherited = [p for p in self._volumes_from(host) if p.destination not in taken]
        taken |= {p.destination for p in inherited}
        declared = [*(config.volumes or {}), *image_volumes]
        anonymous = specs.resolve(HostConfig(volume_driver=host.volume_driver), declared, [])
        return [*own, *inherited, *(p for p in anonymous if p.destination not in taken)]

    def _volumes_from(self, host: HostConfig) -> list[MountPoint]:
        points: dict[str, MountPoint] = {}
        for text in host.volumes_from or ():
            if not text:
                raise InvalidArgument("volumes-from specification cannot be an empty string")
            wanted, _, mode = text.partition(":")
            if mode not in ("", "rw", "ro", "z", "Z"):
                raise InvalidArgument(f"invalid mode: {mode}")
            for point in self._containers.find(wanted).record.mounts:
                if point.type in ("bind", "volume"):
                    points[point.destination] = replace(
                        point,
                        mode="",
                        rw=point.rw and mode != "ro",
                        copy_up=False,
                        volume_id=_volume_id(point),
                    )
        return list(points.values())

    def _with_ids(self, host: HostConfig) -> HostConfig:
        """Replace ``container:NAME`` by ``container:<id>``: a name can move to another container."""
        return replace(
            host,
            network_mode=self._with_id(host.network_mode, "joining network namespace of container: "),
            ipc_mode=self._with_id(host.ipc_mode),
            pid_mode=self._with_id(host.pid_mode),
        )

    def _with_id(self, mode: str, why: str = "") -> str:
        kind, _, wanted = mode.partition(":")
        if kind != "container" or not wanted:
            return mode
        try:
            return f"container:{self._containers.find(wanted).id}"
        except NotFound as e:
            raise InvalidArgument(f"{why}{e.message}") from e

    def _warnings(self, row: ContainerRow) -> list[str]:
        host = row.record.host_config
        warnings = normalise.windows_only(host)
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

    async def inspect(self, wanted: str, *, size: bool = False) -> ContainerView:
        row = self._containers.find(wanted)
        view = self.view(row, self._sandboxes.of(row.id))
        return (await self.measured([view]))[0] if size else view

    async def measured(self, views: Sequence[ContainerView]) -> list[ContainerView]:
        """The same containers with their sizes. One that is removed meanwhile has none."""
        layers = [(view.record.id, view.record.chain_id) for view in views]
        images: dict[str | None, int] = {}  # most containers share theirs
        sizes = await threads.disk(lambda: [self._sizes(*layer, images) for layer in layers])
        return [
            dataclasses.replace(view, size_rw=own, size_root_fs=None if own is None else own + image)
            for view, (own, image) in zip(views, sizes, strict=True)
        ]

    def _sizes(
        self, container_id: str, image: str | None, images: dict[str | None, int]
    ) -> tuple[int | None, int]:
        """Bytes of a container's own files, and of its image's. Blocks: it walks the files.

        :param images: sizes of images that are known already.
        """
        try:
            own = self._snapshotter.usage(container_id).bytes
            if image not in images:
                images[image] = self._image_size(image)
            return own, images[image]
        except NotFound:
            return None, 0

    def sandboxes(self) -> dict[str, Sandbox]:
        """Every sandbox by container id, for :meth:`view` of many."""
        return self._sandboxes.all()

    def view(self, row: ContainerRow, sandbox: Sandbox | None, *, image_name: str = "") -> ContainerView:
        """On the loop, without sizes."""
        live = self._live.get(row.id)
        running = live.task is not None
        return ContainerView(
            name=row.name,
            record=row.record,
            state=row.state if live.health is None else replace(row.state, health=live.health),
            endpoints=self._sandboxes.endpoints(row, sandbox),
            ports=self._sandboxes.ports(row, sandbox),
            exec_ids=tuple(live.open_execs),
            image_name=image_name or row.record.config.image,
            directory=str(self._settings.container_directory(row.id)),
            log_path=self._log_path(row),
            sandbox_key=str(sandbox.path) if running and sandbox is not None else "",
            size_rw=None,
            size_root_fs=None,
            runtime=row.record.host_config.runtime,
            mounts=tuple(
                p for p in self._holds.named(row.record.mounts) if not _is_tmpfs_flag(p, row.record)
            ),
            link_names=self._links.names(row.id),
            links=self._links.shown(row) if row.record.links else None,
            log_driver="" if row.record.log_chosen else log_options.DEFAULT_SHOWN,
        )

    def _log_path(self, row: ContainerRow) -> str:
        """The log's path, which tools read as JSON lines."""
        is_json = row.record.host_config.log_config.type == "json-file"
        return str(self._settings.json_log_path(row.id)) if is_json else ""

    def _image_size(self, parent: str | None) -> int:
        total = 0
        while parent is not None:
            total += self._snapshotter.usage(parent).bytes
            parent = self._snapshotter.stat(parent).parent
        return total

    # ---- rename ----------------------------------------------------------------------------------------

    async def rename(self, wanted: str, name: str) -> None:
        """:raises Conflict: the new name is taken, or is the old one."""
        row = self._containers.find(wanted)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        with _said_of_a_name():
            new = names.check_name(f"/{name.removeprefix('/')}")
        async with self._live.get(row.id).lock:
            if new == row.name:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            with _said_of_a_name():
                self._containers.rename(row.id, new)
            descriptions.write(self._settings, new, row.record)
            await threads.runtime(self._sandboxes.rename, row, new)
        renamed = ContainerRow(new, row.record, row.state)
        self._events.publish("container", "rename", row.id, event_attributes(renamed, oldName=f"/{row.name}"))


@contextmanager
def _said_of_a_name() -> Iterator[None]:
    """Say of an error that a new name is the reason, as Docker does; it stays of its kind."""
    try:
        yield
    except (Conflict, InvalidArgument) as e:
        e.args = (f"Error when allocating new name: {e.message}", *e.args[1:])
        raise


def _is_tmpfs_flag(point: MountPoint, record: Container) -> bool:
    """Whether it came from ``--tmpfs``: Docker does not list those among the mounts, unlike ``--mount``."""
    asked = record.host_config.tmpfs or {}
    return point.type == "tmpfs" and any(posixpath.normpath(path) == point.destination for path in asked)


def _volume_id(point: MountPoint) -> str:
    return point.volume if point.type == "volume" else ""


def _platform_warning(image: Image) -> list[str]:
    if image.config.platform.runs_on(oci.host()):
        return []
    return [
        f"The requested image's platform ({image.config.platform}) does not match the detected host "
        f"platform ({oci.host()}) and no specific platform was requested"
    ]
