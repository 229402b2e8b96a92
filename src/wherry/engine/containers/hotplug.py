"""Mounts, devices and published ports of a running container: add, remove, and record for the next start.

Every change is made in the kernel first, and undone if a later one fails. The record is written last. If the
daemon is killed in between, the changes last only until the task ends.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from wherry.engine.containers import portbindings
from wherry.engine.containers.sandboxes import Sandboxes, port_mappings
from wherry.engine.live import Task
from wherry.engine.mounts import specs
from wherry.engine.mounts.holds import Holds
from wherry.engine.mounts.sources import MountSources
from wherry.errors import Conflict, Internal, InvalidArgument, WherryError
from wherry.linux import cgroups, hotplug
from wherry.model.container import (
    Container,
    ContainerUpdate,
    DeviceMapping,
    Empty,
    HostConfig,
    MountPoint,
    MountSpec,
    PortBinding,
)
from wherry.network.types import PortMapping, PublishedPort
from wherry.runtime import limits
from wherry.runtime.spec import OciMount
from wherry.runtime.task import Runtime
from wherry.state.containers import ContainerRow
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.store import VolumeStore

T = TypeVar("T")
Rules = list[dict[str, Any]]


@dataclass
class AppliedChanges:
    """The changes made so far. ``undo`` takes them back; ``made``: new volumes; ``gone``: mounts to release
    once the record is written."""

    record: Container
    undo: ExitStack
    made: list[str] = field(default_factory=list)
    gone: list[MountPoint] = field(default_factory=list)

    def host(self, **fields: object) -> None:
        self.record = replace(self.record, host_config=replace(self.record.host_config, **fields))


class Hotplug:
    """Blocks: call it on a thread, with the container's lock held."""

    def __init__(
        self, *, holds: Holds, volumes: VolumeStore, snapshotter: Snapshotter, sandboxes: Sandboxes
    ) -> None:
        self._holds = holds
        self._volumes = volumes
        self._snapshotter = snapshotter
        self._sandboxes = sandboxes

    def apply(
        self,
        row: ContainerRow,
        change: ContainerUpdate,
        changes: AppliedChanges,
        task: Task | None,
        runtime: Runtime,
    ) -> None:
        """Removals before additions, so that one request can replace what is there.

        :param task: None for a container that does not run: then only the record changes.
        """
        for destination in change.mounts_remove or ():
            self._remove_mount(changes, _cleaned(destination), task)
        for path in change.devices_remove or ():
            self._remove_device(changes, _cleaned(path), task, runtime)
        for text in change.publish_remove or ():
            self._unpublish(row, changes, text, task)
        for spec in change.mounts_add or ():
            self._add_mount(changes, spec, task)
        for mapping in change.devices_add or ():
            self._add_device(changes, mapping, task, runtime)
        if change.publish_add:
            self._publish(row, changes, change.publish_add, task)

    # ---- mounts ----------------------------------------------------------------------------------------

    def _add_mount(self, changes: AppliedChanges, spec: MountSpec, task: Task | None) -> None:
        record = changes.record
        point = specs.from_spec(spec)
        if any(p.destination == point.destination for p in record.mounts):
            raise Conflict(f"Duplicate mount point: {point.destination}")
        point = self._holds.take(point, record.id, changes.undo, changes.made)
        if task is not None:
            self._attach(point, task, changes.undo)
            changes.undo.callback(hotplug.detach, task.process_fd, point.destination)
        changes.record = replace(record, mounts=[*record.mounts, point])
        changes.host(mounts=[*(record.host_config.mounts or ()), spec])

    def _attach(self, point: MountPoint, task: Task, undo: ExitStack) -> None:
        source = MountSources(task.directory, self._volumes, self._snapshotter, undo).prepare(point)
        try:
            fd = _detached(source)
            try:
                hotplug.attach(task.process_fd, fd, point.destination)
            finally:
                os.close(fd)
        except OSError as e:
            raise InvalidArgument(
                f"cannot mount at {point.destination}: {(e.strerror or str(e)).lower()}"
            ) from e

    def _remove_mount(self, changes: AppliedChanges, destination: str, task: Task | None) -> None:
        record = changes.record
        point = next((p for p in record.mounts if p.destination == destination), None)
        if point is None:
            raise InvalidArgument(f"cannot remove mount {destination}: the container has none there")
        if task is not None:
            try:
                hotplug.detach(task.process_fd, destination, self._others(record, point))
            except OSError as e:
                raise Internal(f"cannot unmount {destination}: {(e.strerror or str(e)).lower()}") from e
            changes.undo.callback(self._attach, point, task, ExitStack())
        changes.gone.append(point)
        host = record.host_config
        changes.record = replace(record, mounts=[p for p in record.mounts if p is not point])
        changes.host(
            binds=_without(host.binds, lambda text: specs.parse_bind(text).destination, destination),
            mounts=_without(host.mounts, lambda spec: _cleaned(spec.target), destination),
            tmpfs={k: v for k, v in (host.tmpfs or {}).items() if _cleaned(k) != destination} or None,
        )

    def _others(self, record: Container, point: MountPoint) -> set[tuple[int, int]]:
        """The sources of the container's other mounts, as far as the host can tell by name."""
        own = self._identity(point)
        found = {self._identity(other) for other in record.mounts if other is not point}
        return {identity for identity in found if identity is not None and identity != own}

    def _identity(self, point: MountPoint) -> tuple[int, int] | None:
        if point.type not in ("bind", "volume") or point.subpath:
            return None
        try:
            volume = self._volumes.by_id(point.volume).mountpoint if point.type == "volume" else None
            status = os.stat(volume or point.source)
        except (OSError, WherryError):
            return None
        return status.st_dev, status.st_ino

    # ---- devices ---------------------------------------------------------------------------------------

    def _add_device(
        self, changes: AppliedChanges, mapping: DeviceMapping, task: Task | None, runtime: Runtime
    ) -> None:
        host = changes.record.host_config
        mapping = replace(
            mapping, path_in_container=_cleaned(mapping.path_in_container or mapping.path_on_host)
        )
        if any(_inside(m) == mapping.path_in_container for m in host.devices or ()):
            raise Conflict(f"cannot add device {mapping.path_in_container}: the container has it")
        nodes = limits.mapped(mapping)
        changes.host(devices=[*(host.devices or ()), mapping])
        if task is None:
            return
        if not host.privileged:
            self._allow(changes, runtime, limits.access(mapping))
        for node in nodes:
            kind = stat.S_IFCHR if node["type"] == "c" else stat.S_IFBLK
            device = os.makedev(node["major"], node["minor"])
            try:
                hotplug.make_node(
                    task.process_fd, node["path"], kind | node["fileMode"], device, (node["uid"], node["gid"])
                )
            except OSError as e:
                raise InvalidArgument(
                    f"cannot add device {node['path']}: {(e.strerror or str(e)).lower()}"
                ) from e
            changes.undo.callback(hotplug.remove_node, task.process_fd, node["path"], device)

    def _remove_device(self, changes: AppliedChanges, path: str, task: Task | None, runtime: Runtime) -> None:
        host = changes.record.host_config
        mapping = next((m for m in host.devices or () if _inside(m) == path), None)
        if mapping is None:
            raise InvalidArgument(f"cannot remove device {path}: the container was not given it")
        changes.host(devices=[m for m in host.devices or () if m is not mapping])
        if task is None:
            return
        try:
            nodes, rules = limits.mapped(mapping), limits.access(mapping)
        except InvalidArgument:
            return  # it is gone from the host as well
        if not host.privileged:
            kept = limits.devices(changes.record.host_config)[1]
            still = [(r.get("type"), r.get("major"), r.get("minor")) for r in kept if r["allow"]]
            denied = [r for r in rules if (r["type"], r["major"], r["minor"]) not in still]
            self._allow(changes, runtime, [{**rule, "allow": False} for rule in denied])
        for node in nodes:
            device = os.makedev(node["major"], node["minor"])
            hotplug.remove_node(task.process_fd, node["path"], device)

    def _allow(self, changes: AppliedChanges, runtime: Runtime, rules: Rules) -> None:
        """Change which devices the cgroup allows.

        Version 1 takes one rule after the other. A list that begins with "deny all" would cut off the running
        processes for a moment. Version 2 takes one program for all rules.
        """
        if not rules:
            return
        container_id = changes.record.id
        if cgroups.layout().version == 1:
            back = [{**rule, "allow": not rule["allow"]} for rule in rules]
        else:
            back = limits.devices(changes.record.host_config)[1]
            rules = back
        changes.undo.callback(runtime.update, container_id, msgspec.json.encode({"devices": back}))
        runtime.update(container_id, msgspec.json.encode({"devices": rules}))

    # ---- published ports -------------------------------------------------------------------------------

    def _publish(
        self,
        row: ContainerRow,
        changes: AppliedChanges,
        bindings: dict[str, list[PortBinding] | None],
        task: Task | None,
    ) -> None:
        host = changes.record.host_config
        if host.network_mode in ("host", "none") or host.network_mode.startswith("container:"):
            raise InvalidArgument(
                f"cannot publish ports of container {row.name}: it has no network of its own "
                f"(network mode {host.network_mode})"
            )
        mappings = port_mappings(HostConfig(port_bindings=bindings), [])
        if task is not None:
            published = self._sandboxes.publish(row, mappings)
            changes.undo.callback(self._sandboxes.unpublish, row, published)
        changes.host(port_bindings=portbindings.added(host.port_bindings, bindings))
        exposed: dict[str, Empty] = {f"{m.container_port}/{m.proto}": {} for m in mappings}
        config = changes.record.config
        changes.record = replace(
            changes.record, config=replace(config, exposed_ports={**exposed, **(config.exposed_ports or {})})
        )

    def _unpublish(self, row: ContainerRow, changes: AppliedChanges, text: str, task: Task | None) -> None:
        wanted = portbindings.parse_published(text)
        bindings = changes.record.host_config.port_bindings
        sandbox = self._sandboxes.of(row.id) if task is not None else None
        gone: list[PublishedPort] = []
        if sandbox is not None:
            gone = portbindings.select(wanted, sandbox.ports)
            left = portbindings.removed(bindings, gone) if gone else None
        else:
            left = portbindings.drop(bindings, wanted)
        if left is None:
            raise InvalidArgument(f"cannot unpublish {text}: container {row.name} does not publish it")
        if gone:
            self._sandboxes.unpublish(row, gone)
            changes.undo.callback(self._sandboxes.publish, row, [_exactly(p) for p in gone])
        changes.host(port_bindings=left)


def _exactly(port: PublishedPort) -> PortMapping:
    return PortMapping(
        container_port=port.container_port,
        proto=port.proto,
        host_ip=port.host_ip,
        host_port=port.host_port,
        sources=port.sources,
    )


def _detached(source: OciMount) -> int:
    if source.type == "tmpfs":
        return hotplug.tmpfs(source.options)
    return hotplug.bind(source.source, source.options)


def _cleaned(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid path {path[:256]!r}: it must be absolute")
    return "/" + posixpath.normpath(path).lstrip("/")


def _inside(mapping: DeviceMapping) -> str:
    return _cleaned(mapping.path_in_container or mapping.path_on_host)


def _without(values: Sequence[T] | None, key: Callable[[T], str], gone: str) -> list[T] | None:
    return [v for v in values or () if key(v) != gone] or None
