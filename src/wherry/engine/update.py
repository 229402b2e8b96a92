"""``update``: limits, the restart policy, mounts, devices and ports of a container, running or not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import msgspec
from msgspec.structs import replace

from wherry.engine import bundle, normalise
from wherry.engine.attributes import event_attributes
from wherry.engine.events import EventBus
from wherry.engine.holds import Holds
from wherry.engine.hotplug import Changes, Hotplug
from wherry.engine.live import LiveSet, Task
from wherry.engine.settings import Settings
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, NotImplemented_, WherryError
from wherry.linux import cgroups
from wherry.model.container import Container, ContainerUpdate, HostConfig, Resources
from wherry.runtime import limits
from wherry.runtime.task import Runtime
from wherry.state.containers import ContainerRow, Containers

_LIMITS = (
    "blkio_weight", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps",
    "blkio_device_read_iops", "blkio_device_write_iops", "cpu_shares", "cpu_period", "cpu_quota",
    "cpu_realtime_period", "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "nano_cpus", "memory",
    "memory_reservation", "memory_swap", "memory_swappiness", "pids_limit",
)  # fmt: skip
"""What the kernel lets change on a running container."""

_FIXED = {
    "cgroup_parent": "CgroupParent",
    "devices": "Devices",
    "device_cgroup_rules": "DeviceCgroupRules",
    "device_requests": "DeviceRequests",
    "ulimits": "Ulimits",
    "oom_kill_disable": "OomKillDisable",
}


class UpdateService:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        runtimes: dict[str, Runtime],
        holds: Holds,
        hotplug: Hotplug,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._runtimes = runtimes
        self._holds = holds
        self._hotplug = hotplug
        self._events = events
        self._live = live

    async def update(self, wanted: str, change: ContainerUpdate) -> list[str]:
        """Carry out all of it or none; returns warnings.

        :raises InvalidArgument: a value out of range or against another, in Docker's words.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            if live.removing:
                raise Conflict('container is marked for removal and cannot be "update"')
            host = merged(row.record.host_config, change)
            try:
                changes = await asyncio.to_thread(self._apply, row, host, change, live.task)
            except NotFound as e:  # of a volume driver, an image: the container itself was found
                raise InvalidArgument(e.message) from e
        for volume in changes.made:
            self._events.publish("volume", "create", volume, {"driver": "local"})
        self._events.publish("container", "update", row.id, event_attributes(row))
        return []

    def _apply(
        self, row: ContainerRow, host: HostConfig, change: ContainerUpdate, task: Task | None
    ) -> Changes:
        runtime = self._runtimes[row.record.host_config.runtime]
        with ExitStack() as undo:
            changes = Changes(replace(row.record, host_config=host), undo)
            self._hotplug.apply(row, change, changes, task, runtime)
            if task is not None:
                self._set_limits(row.record, host, runtime, undo)
            self._containers.set_record(changes.record)
            undo.pop_all()
        for point in changes.gone:
            self._holds.release(point, row.id, changes.record.mounts)
        return changes

    def _set_limits(self, record: Container, host: HostConfig, runtime: Runtime, undo: ExitStack) -> None:
        before = limits.resources(record.host_config)
        after = limits.resources(host)
        if before == after:
            return

        def put_back() -> None:
            try:
                runtime.update(record.id, msgspec.json.encode(before))
            except WherryError:
                pass  # why the update failed is what counts

        undo.callback(put_back)
        runtime.update(record.id, msgspec.json.encode(after))
        if "pids" in before and "pids" not in after:
            try:
                cgroups.unlimit_pids(bundle.cgroup_path(record, self._settings))
            except OSError as e:
                raise Internal(f"cannot update limits: pids.max: {e.strerror}") from e


def merged(host: HostConfig, change: ContainerUpdate) -> HostConfig:
    """``host`` with what ``change`` says; zero and empty say nothing, as in Docker.

    :raises InvalidArgument: a value out of range, or one that contradicts what was set before.
    :raises NotImplemented_: a member that cannot be changed any more.
    """
    for name, shown in _FIXED.items():
        if getattr(change, name):
            raise NotImplemented_(f"cannot update {shown} of a container: it is fixed when it is created")
    _check_conflicts(host, change)
    said: dict[str, object] = {}
    for name in _LIMITS:
        value = getattr(change, name)
        if value or (name in ("memory_swappiness", "pids_limit") and value is not None):
            said[name] = value
    policy = change.restart_policy
    if policy is not None and policy.name:
        if host.auto_remove and policy.name != "no":
            raise InvalidArgument(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        said["restart_policy"] = policy
    new = replace(host, **said)
    normalise.check_restart(new)
    limits.check(new)
    return new


def _check_conflicts(host: HostConfig, change: Resources) -> None:
    for name, value in (("CPU Period", change.cpu_period), ("CPU Quota", change.cpu_quota)):
        if value and host.nano_cpus:
            raise InvalidArgument(
                f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set"
            )
    for name, value in (("CPU Period", host.cpu_period), ("CPU Quota", host.cpu_quota)):
        if value and change.nano_cpus:
            raise InvalidArgument(
                f"Conflicting options: NanoCPUs cannot be updated as {name} has already been set"
            )
    if change.memory and not change.memory_swap and 0 < host.memory_swap < change.memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
