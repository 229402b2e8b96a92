"""``update``: limits, the restart policy, mounts, devices and ports of a container, running or not."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
from msgspec.structs import replace

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import bundle, descriptions, normalise
from wherry.engine.containers.hotplug import AppliedChanges, Hotplug
from wherry.engine.ground import Ground
from wherry.engine.live import Task
from wherry.engine.mounts.holds import Holds
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, NotImplemented_, WherryError
from wherry.linux import cgroups
from wherry.model.container import Container, ContainerUpdate, HostConfig, Resources
from wherry.runtime import limits, support
from wherry.runtime.task import Runtime
from wherry.state.containers import ContainerRow

_LIMITS = (
    "blkio_weight", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps",
    "blkio_device_read_iops", "blkio_device_write_iops", "cpu_shares", "cpu_period", "cpu_quota",
    "cpu_realtime_period", "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "nano_cpus", "memory",
    "memory_reservation", "memory_swap", "memory_swappiness", "pids_limit",
)  # fmt: skip
"""Fields that the kernel can change on a running container."""

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
        self, ground: Ground, *, runtimes: dict[str, Runtime], holds: Holds, hotplug: Hotplug
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._runtimes = runtimes
        self._holds = holds
        self._hotplug = hotplug
        self._events = ground.events
        self._live = ground.live

    async def update(self, wanted: str, change: ContainerUpdate) -> list[str]:
        """Apply all changes or none; returns warnings.

        :raises InvalidArgument: a value out of range, or in conflict with another, with Docker's message.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            if live.removing:
                raise Conflict('container is marked for removal and cannot be "update"')
            parent = cgroups.check_parent(
                row.record.host_config.cgroup_parent or self._settings.cgroup_parent
            )
            change, warnings = support.discard(change, parent)
            host = merged(row.record.host_config, change)
            support.check(host, parent)
            try:
                changes = await threads.runtime(self._apply, row, host, change, live.task)
            except NotFound as e:  # a volume driver or an image is missing: the container itself was found
                raise InvalidArgument(e.message) from e
        for volume in changes.made:
            self._events.publish("volume", "create", volume, {"driver": "local"})
        self._events.publish("container", "update", row.id, event_attributes(row))
        return warnings

    def _apply(
        self, row: ContainerRow, host: HostConfig, change: ContainerUpdate, task: Task | None
    ) -> AppliedChanges:
        runtime = self._runtimes[row.record.host_config.runtime]
        with ExitStack() as undo:
            changes = AppliedChanges(replace(row.record, host_config=host), undo)
            self._hotplug.apply(row, change, changes, task, runtime)
            if task is not None:
                self._set_limits(row.record, host, runtime, undo)
            self._containers.set_record(changes.record)
            undo.pop_all()
        self._holds.settle(changes.record)
        descriptions.write(self._settings, row.name, changes.record)
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
                pass  # report why the update failed

        undo.callback(put_back)
        runtime.update(record.id, msgspec.json.encode(after))
        path = bundle.cgroup_path(record, self._settings)
        try:
            if "pids" in before and "pids" not in after:
                cgroups.unlimit_pids(path)
            if "quota" in before.get("cpu", {}) and "quota" not in after.get("cpu", {}):
                cgroups.unlimit_cpu(path)
        except OSError as e:
            raise Internal(f"cannot update limits: {e.filename}: {e.strerror}") from e


def merged(host: HostConfig, change: ContainerUpdate) -> HostConfig:
    """``host`` with the values of ``change``; zero and empty mean "no change", as in Docker.

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
            said[name] = max(value, 0) if name == "pids_limit" else value
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
    limits.check_weight(new)
    return new


def _check_conflicts(host: HostConfig, change: Resources) -> None:
    for name, value in (("CPU Period", change.cpu_period), ("CPU Quota", change.cpu_quota)):
        if value > 0 and host.nano_cpus:
            raise InvalidArgument(
                f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set"
            )
    for name, value in (("CPU Period", host.cpu_period), ("CPU Quota", host.cpu_quota)):
        if value > 0 and change.nano_cpus:
            raise InvalidArgument(
                f"Conflicting options: Nano CPUs cannot be updated as {name} has already been set"
            )
    if change.memory and not change.memory_swap and 0 < host.memory_swap < change.memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
