"""Files in and out of containers: whose they are, who takes turns, and what else happens meanwhile.

A running container's files are reached through its first process, a stopped one's are put together from its
layer and its mounts, as a start would mount them. Who writes holds the container's ``files`` lock, which a
start waits for: the same layer mounted twice for writing is undefined (overlayfs). Readers take no lock.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TypeVar

from wherry.engine.attributes import event_attributes
from wherry.engine.events import EventBus
from wherry.engine.live import LiveSet, Task
from wherry.engine.settings import Settings
from wherry.errors import Conflict, NotFound
from wherry.linux.containerroot import Inside, Layer, Point
from wherry.model.container import Container, MountPoint
from wherry.model.mount import Mount
from wherry.state.containers import ContainerRow, Containers
from wherry.storage import containerfiles
from wherry.storage.containerfiles import ContainerEnded, Mounted, View, split_path
from wherry.storage.containerfiles import FileChange as FileChange
from wherry.storage.containerfiles import Job as Job
from wherry.storage.containerfiles import PathStat as PathStat
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.mounted import user_of
from wherry.volumes.store import VolumeStore

T = TypeVar("T")
_THREADS = 64
"""Each copy has one for as long as its client takes."""
_EXIT_TIMEOUT = 10.0
"""Seconds between a process's end and its watcher's word of it, at the very most."""
_ETC = ("hostname", "hosts", "resolv.conf")


class FileService:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        snapshotter: Snapshotter,
        volumes: VolumeStore,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._events = events
        self._live = live
        self._threads = ThreadPoolExecutor(_THREADS, "files")

    # ---- use cases -----------------------------------------------------------------------------------------

    async def stat(self, wanted: str, path: str) -> PathStat:
        """:raises NotFound: no such container or file."""
        row = self._containers.find(wanted)
        found: list[PathStat] = []
        role, what = ("stat", *split_path(path)), _what(path)
        await self._run(
            row, wanted, path, lambda view: Job().run(view, role, what=what, on_stat=found.append)
        )
        return found[0]

    async def read(
        self, wanted: str, path: str, target: BinaryIO, job: Job, on_stat: Callable[[PathStat], None]
    ) -> None:
        """Write an archive of ``path`` to ``target``; ``on_stat`` is called before, on the loop.

        :raises NotFound: no such container or file; before ``on_stat``.
        """
        row = self._containers.find(wanted)
        role = ("read", *split_path(path))
        loop = asyncio.get_running_loop()

        def say(stat: PathStat) -> None:
            loop.call_soon_threadsafe(on_stat, stat)

        def work(view: View) -> None:
            job.run(view, role, what=_what(path), stdout=target.fileno(), on_stat=say)

        await self._run(row, wanted, path, work)
        self._events.publish("container", "archive-path", row.id, event_attributes(row))

    async def write(self, wanted: str, path: str, source: BinaryIO, job: Job, *, keep_kinds: bool) -> None:
        """Extract an archive into the directory ``path``.

        :raises NotFound: no such container or directory. :raises InvalidArgument: the archive does not fit,
            or the place is read-only.
        """
        row = self._containers.find(wanted)
        role = ("write", split_path(path)[0], "1" if keep_kinds else "0")
        live = self._live.get(row.id)
        async with live.files:
            row = self._containers.find(row.id)
            live.file_jobs.add(job)
            try:
                await self._run(
                    row,
                    wanted,
                    path,
                    lambda view: job.run(view, role, what=f"cannot extract to {path}", stdin=source.fileno()),
                    writable=True,
                )
            finally:
                live.file_jobs.discard(job)
        self._events.publish("container", "extract-to-dir", row.id, event_attributes(row))

    async def export(self, wanted: str, target: BinaryIO, job: Job) -> None:
        """Write all of a container's own file system to ``target``, its mounts as empty directories."""
        row = self._containers.find(wanted)
        self._check_there(row)
        what = f"cannot export {wanted}"

        def work() -> None:
            task, view = self._live.get(row.id).task, None
            if task is not None:
                root = self._mounted_root(task, row)
                view = Mounted(str(task.directory / "rootfs"), root.st_dev, root.st_ino)
            layer = view or Layer(self._snapshotter.mounts(row.id)[0])
            job.run(layer, ("export",), what=what, stdout=target.fileno())

        await self._again_once_ended(row, lambda: self._in_thread(work))
        self._events.publish("container", "export", row.id, event_attributes(row))

    async def changes(self, wanted: str) -> list[FileChange]:
        """What the container changed in its image's files, sorted by path."""
        row = self._containers.find(wanted)
        self._check_there(row)
        return await self._in_thread(
            lambda: containerfiles.changes(self._snapshotter, row.id, what=f"cannot compare {wanted}")
        )

    # ---- how -----------------------------------------------------------------------------------------------

    async def _run(
        self,
        row: ContainerRow,
        wanted: str,
        path: str,
        work: Callable[[View], None],
        *,
        writable: bool = False,
    ) -> None:
        self._check_there(row)

        def on_layer() -> None:
            with ExitStack() as undo:
                work(self._layer(row.record, undo, writable=writable))

        async def once() -> None:
            task = self._live.get(row.id).task
            if task is None:
                await self._in_thread(on_layer)
                return
            with task.process() as pidfd:
                root = self._mounted_root(task, row)
                await self._in_thread(lambda: work(Inside(pidfd, root.st_dev, root.st_ino)))

        try:
            await (once() if writable else self._again_once_ended(row, once))
        except NotFound as e:
            raise NotFound(f"Could not find the file {path} in container {wanted}") from e

    def _mounted_root(self, task: Task, row: ContainerRow) -> os.stat_result:
        """What the root of the container's process must be.

        :raises ContainerEnded: the layer is not mounted any more; what is there is an empty directory.
        """
        place = task.directory / "rootfs"
        try:
            root = place.stat()
            mount = self._snapshotter.mounts(row.id)[0]
            if mount.type == "bind":
                mounted = os.path.samestat(root, os.stat(mount.source))
            else:
                mounted = root.st_dev != task.directory.stat().st_dev
        except FileNotFoundError:
            mounted = False
        if not mounted:
            raise ContainerEnded(f"container {row.id} has stopped")
        return root

    async def _again_once_ended(self, row: ContainerRow, work: Callable[[], Awaitable[None]]) -> None:
        """Try again as with a stopped container, where it stopped in this very moment."""
        try:
            await work()
        except ContainerEnded:
            live = self._live.get(row.id)
            if live.task is not None:
                exited = live.next_exit()
                await asyncio.wait([exited], timeout=_EXIT_TIMEOUT)
                exited.cancel()
            async with live.lock:  # the exit is being handled
                pass
            await work()

    @staticmethod
    def _check_there(row: ContainerRow) -> None:
        if row.state.status in ("removing", "dead"):
            raise Conflict(f"container {row.id} is marked for removal")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _layer(self, record: Container, undo: ExitStack, *, writable: bool) -> Layer:
        points = [p for p in (self._point(m, undo) for m in record.mounts) if p is not None]
        taken = {p.destination for p in points}
        directory = self._settings.container_directory(record.id)
        points += [
            Point(f"/etc/{name}", _bind(directory / name), writable=True)
            for name in _ETC
            if f"/etc/{name}" not in taken and (directory / name).exists()
        ]
        return Layer(
            self._snapshotter.mounts(record.id)[0],
            sorted(points, key=lambda p: p.destination.count("/")),
            writable=writable,
            readonly=record.host_config.readonly_rootfs,
        )

    def _point(self, point: MountPoint, undo: ExitStack) -> Point | None:
        """``None`` for what is only there while the container runs."""
        if point.type == "tmpfs":
            return None
        if point.type == "image":
            mount = self._snapshotter.mounts(point.name)[0]
        elif point.type == "volume":
            user = user_of(f"copy-{secrets.token_hex(8)}", point.destination)
            mount = _bind(self._volumes.mounts.take(point.volume, user))
            undo.callback(self._volumes.mounts.give_back, point.volume, user)
        else:
            mount = _bind(Path(point.source))
        return Point(point.destination, mount, point.subpath, point.rw, point.recursive)


def _bind(source: Path) -> Mount:
    return Mount("bind", str(source), ("bind",))


def _what(path: str) -> str:
    return f"cannot copy {path}"
