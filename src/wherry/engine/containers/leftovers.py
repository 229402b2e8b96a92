"""Clean up a container's task that no daemon watches: end its processes and remove it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping

from wherry.engine.containers import bundle
from wherry.engine.ground import Ground
from wherry.errors import NotFound, WherryError
from wherry.linux import cgroups, files, mounts
from wherry.linux.descriptors import readable
from wherry.mishaps import contained
from wherry.runtime import task as tasks
from wherry.runtime.task import Runtime
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

_DEATH = 5.0
"""Seconds that a killed process has to end."""


class Leftovers:
    """Everything here blocks."""

    def __init__(self, ground: Ground, runtimes: Mapping[str, Runtime]) -> None:
        self._settings, self._containers, self._runtimes = ground.settings, ground.containers, runtimes

    def kill(self, row: ContainerRow) -> None:
        """End the processes of a task whose conmon or runtime directory is gone."""
        if bundle.is_anothers(row.record, self._settings):
            log.warning(
                "left the processes of container %s (%s) alone: they are of a daemon with another root",
                row.id[:12], row.name,
            )  # fmt: skip
            return
        try:
            count = cgroups.kill(bundle.cgroup_path(row.record, self._settings))
        except OSError as e:
            log.warning("cannot end the remaining processes of container %s: %s", row.id[:12], e)
            return
        if count:
            log.info("ended %d orphan processes of container %s (%s)", count, row.id[:12], row.name)

    def remove(self, container_id: str) -> None:
        """Remove a task: the runtime's state, its conmon, mounts, cgroup and directory."""
        task_directory = self._settings.task_directory(container_id)
        for runtime in self._runtimes.values():
            try:
                runtime.delete(container_id)
            except WherryError as e:
                log.warning("%s", e.message)
        with contained(f"end the conmon of container {container_id[:12]}"):
            self._kill_conmon(container_id)
        for target in mounts.mounts_below(task_directory):
            mounts.unmount(target)
        try:
            row = self._containers.find(container_id)
            bundle.release(row.record, self._settings)
        except NotFound:
            files.remove_tree(task_directory)
            _remove_cgroup(cgroups.child(self._settings.cgroup_parent, container_id))
        except OSError as e:
            log.warning("cannot clean up task %s: %s", container_id[:12], e)

    def _kill_conmon(self, container_id: str) -> None:
        """Kill conmon: if the container never ran, it would wait for it for ever. Until it has ended, it may
        make files in the task's directory."""
        directory = self._settings.task_directory(container_id)
        try:
            pid = int((directory / "conmon.pid").read_text())
        except (OSError, ValueError):
            return
        fd = tasks.conmon_fd(directory, pid)
        if fd is not None:
            try:
                if tasks.send_signal(fd, signal.SIGKILL) and not readable(fd, _DEATH):
                    log.warning("the conmon of container %s does not end", container_id[:12])
            finally:
                os.close(fd)


def _remove_cgroup(path: str) -> None:
    try:
        cgroups.remove(path)
    except OSError as e:
        log.warning("cannot remove cgroup %s: %s", path, e)
