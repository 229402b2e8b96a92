"""From a container's row to a created process that waits: bundle, monitor, and what the OCI runtime makes
of them.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.containers import bundle
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.joined import Joined
from wherry.engine.ground import Ground, Stores
from wherry.engine.logs.keeping import LogKeeping
from wherry.linux import execgroups
from wherry.logs import options as log_options
from wherry.runtime.monitor import Monitor, Started
from wherry.runtime.task import Streams
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A bundle, and the monitor that waits for it; ``None`` where it could not begin so early."""

    bundle: bundle.PreparedBundle
    monitor: Monitor | None


class Launching:
    """Both steps block. Between them the sandbox must be there."""

    def __init__(self, ground: Ground, stores: Stores, *, devices: Devices, logs: LogKeeping) -> None:
        self._settings = ground.settings
        self._stores = stores
        self._devices = devices
        self._logs = logs

    def prepare(self, row: ContainerRow, joined: Joined, undo: ExitStack) -> Prepared:
        """Make the bundle. The monitor takes 3 ms to begin, in which the bundle and the sandbox are made.

        :raises InvalidArgument, Conflict: see :func:`bundle.prepare`.
        """
        record = row.record
        self._logs.prepare(row)
        monitor = self._stores.runtimes[record.host_config.runtime].begin(
            row.id,
            self._settings.task_directory(row.id),
            streams=_streams(row),
            log_path=self._log_path(row),
        )
        if monitor is not None:
            undo.callback(monitor.close)
        made = bundle.prepare(
            record,
            joined,
            devices=self._devices.resolve(record.host_config.device_requests or ()),
            settings=self._settings,
            snapshotter=self._stores.snapshotter,
            volumes=self._stores.volumes,
            secrets=self._stores.secrets,
            undo=undo,
        )
        return Prepared(made, monitor)

    def create(self, row: ContainerRow, prepared: Prepared) -> Started:
        """:raises TaskFailed: the OCI runtime refuses."""
        started = self._stores.runtimes[row.record.host_config.runtime].create(
            row.id,
            prepared.bundle.directory,
            streams=_streams(row),
            log_path=self._log_path(row),
            command=prepared.bundle.command,
            needed=prepared.bundle.needed,
            monitor=prepared.monitor,
        )
        _shelter(bundle.cgroup_path(row.record, self._settings), started.pid)
        return started

    def _log_path(self, row: ContainerRow) -> Path | None:
        kept = log_options.is_kept(row.record.host_config.log_config)
        return self._settings.log_path(row.id) if kept else None


def _streams(row: ContainerRow) -> Streams:
    config = row.record.config
    return Streams(config.tty, config.open_stdin, config.stdin_once)


def _shelter(cgroup: str, pid: int) -> None:
    """Move the first process into its own group. If this fails, execs are only harder to tell from it."""
    try:
        execgroups.shelter(cgroup, pid)
    except OSError as e:
        log.warning("cannot set process %d apart from execs: %s", pid, e)
