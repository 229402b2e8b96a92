"""Copy files into and out of containers: which files, who may access them when, and what happens meanwhile.

A running container's files are reached through its first process. A stopped container's files are put
together from its layer and its mounts, as a start would mount them. A writer holds the container's ``files``
lock, and a start waits for that lock: mounting the same layer twice for writing is undefined (overlayfs).
Readers take no lock. Both use the container's volumes until their thread ends, so a removal cancels them and
waits.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.ground import Ground
from wherry.engine.live import Task
from wherry.engine.mounts.sources import ensure_bind_source
from wherry.errors import Conflict, NotFound
from wherry.linux.containerroot import Inside, LayerMounts, Point
from wherry.model.container import Container, MountPoint
from wherry.model.mount import Mount
from wherry.state.containers import ContainerRow
from wherry.storage.confined import containerfiles
from wherry.storage.confined.containerfiles import ContainerEnded, LayerChange, MountedRoot, View, split_path
from wherry.storage.confined.containerfiles import Job as Job
from wherry.storage.confined.containerfiles import PathStat as PathStat
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.mounted import user_of
from wherry.volumes.store import VolumeStore

T = TypeVar("T")
_EXIT_TIMEOUT = 10.0
"""The longest time, in seconds, between a process's end and the moment its watcher reports it."""
_ETC = ("hostname", "hosts", "resolv.conf")


class FileService:
    def __init__(self, ground: Ground, *, snapshotter: Snapshotter, volumes: VolumeStore) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._events = ground.events
        self._live = ground.live

    # ---- use cases -----------------------------------------------------------------------------------------

    async def stat(self, wanted: str, path: str) -> PathStat:
        """:raises NotFound: no such container or file."""
        row = self._containers.find(wanted)
        found: list[PathStat] = []
        role, what, job = ("stat", *split_path(path)), _what(path), Job()
        await self._run(
            row, wanted, path, job, lambda view: job.run(view, role, what=what, on_stat=found.append)
        )
        return found[0]

    async def read(
        self, wanted: str, path: str, target: BinaryIO, job: Job, on_stat: Callable[[PathStat], None]
    ) -> None:
        """Write an archive of ``path`` to ``target``. ``on_stat`` is called before that, on the loop.

        :raises NotFound: no such container or file; raised before ``on_stat`` is called.
        """
        row = self._containers.find(wanted)
        role = ("read", *split_path(path))
        loop = asyncio.get_running_loop()

        def told(stat: PathStat) -> None:
            # now, because a client that has seen enough closes its connection
            self._events.publish("container", "archive-path", row.id, event_attributes(row))
            on_stat(stat)

        def say(stat: PathStat) -> None:
            loop.call_soon_threadsafe(told, stat)

        def work(view: View) -> None:
            job.run(view, role, what=_what(path), stdout=target.fileno(), on_stat=say)

        await self._run(row, wanted, path, job, work)

    async def write(
        self,
        wanted: str,
        path: str,
        source: BinaryIO,
        job: Job,
        *,
        keep_kinds: bool,
        for_user: bool = False,
    ) -> None:
        """Extract an archive into the directory ``path``.

        :param for_user: all of it belongs to the container's user, where it has one of its own.
        :raises NotFound: no such container or directory. :raises InvalidArgument: the archive does not fit,
            or the place is read-only.
        """
        row = self._containers.find(wanted)
        owner = row.record.config.user or "" if for_user else ""
        role = ("write", split_path(path)[0], "1" if keep_kinds else "0", "0", owner)
        live = self._live.get(row.id)
        async with live.files:
            row = self._containers.find(row.id)
            await self._run(
                row,
                wanted,
                path,
                job,
                lambda view: job.run(view, role, what=f"cannot extract to {path}", stdin=source.fileno()),
                writable=True,
            )
        self._events.publish("container", "extract-to-dir", row.id, event_attributes(row))

    async def export(self, wanted: str, target: BinaryIO, job: Job) -> None:
        """Write the container's whole file system to ``target``; mounts appear as empty directories."""
        row = self._containers.find(wanted)
        self._check_there(row)
        what = f"cannot export {wanted}"

        def work() -> None:
            task, view = self._live.get(row.id).task, None
            if task is not None:
                root = self._mounted_root(task, row)
                view = MountedRoot(str(task.directory / "rootfs"), root.st_dev, root.st_ino)
            layer = view or LayerMounts(self._snapshotter.mounts(row.id)[0])
            job.run(layer, ("export",), what=what, stdout=target.fileno())

        await self._again_once_ended(row, lambda: self._to_end(row, job, work))
        self._events.publish("container", "export", row.id, event_attributes(row))

    async def changes(self, wanted: str) -> list[LayerChange]:
        """The files that the container changed compared with its image, sorted by path."""
        row = self._containers.find(wanted)
        self._check_there(row)
        job = Job()
        work = partial(
            containerfiles.changes, self._snapshotter, row.id, job, what=f"cannot compare {wanted}"
        )
        live = self._live.get(row.id)
        await live.until_put_away()
        with live.file_job(job):
            return await threads.child.until(job.end, work)

    # ---- how -----------------------------------------------------------------------------------------------

    async def _run(
        self,
        row: ContainerRow,
        wanted: str,
        path: str,
        job: Job,
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
                await self._to_end(row, job, on_layer)
                return
            with task.process() as pidfd:
                root = self._mounted_root(task, row)
                await self._to_end(row, job, lambda: work(Inside(pidfd, root.st_dev, root.st_ino)))

        try:
            await (once() if writable else self._again_once_ended(row, once))
        except NotFound as e:
            raise NotFound(f"Could not find the file {path} in container {wanted}") from e

    async def _to_end(self, row: ContainerRow, job: Job, work: Callable[[], None]) -> None:
        """Run it on a thread. If the caller is cancelled, the work is stopped too.

        :raises NotFound: the container was removed while this waited for its turn.
        """
        live = self._live.get(row.id)
        await live.until_put_away()
        self._containers.find(row.id)
        with live.file_job(job):
            await threads.waits.until(job.end, work)

    def _mounted_root(self, task: Task, row: ContainerRow) -> os.stat_result:
        """The directory that the root of the container's process must be.

        :raises ContainerEnded: the layer is not mounted any more; there is only an empty directory.
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
        """If the container stopped in this moment, try again as with a stopped container."""
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

    def _layer(self, record: Container, undo: ExitStack, *, writable: bool) -> LayerMounts:
        points = [p for p in (self._point(m, undo) for m in record.mounts) if p is not None]
        taken = {p.destination for p in points}
        directory = self._settings.container_directory(record.id)
        points += [
            Point(f"/etc/{name}", _bind(directory / name), writable=not record.host_config.readonly_rootfs)
            for name in _ETC
            if f"/etc/{name}" not in taken and (directory / name).exists()
        ]
        return LayerMounts(
            self._snapshotter.mounts(record.id)[0],
            sorted(points, key=lambda p: p.destination.count("/")),
            writable=writable,
            readonly=record.host_config.readonly_rootfs,
        )

    def _point(self, point: MountPoint, undo: ExitStack) -> Point | None:
        """``None`` for mounts that exist only while the container runs."""
        if point.type == "tmpfs":
            return None
        if point.type == "image":
            mount = self._snapshotter.mounts(point.name)[0]
        elif point.type == "volume":
            user = user_of(f"copy-{secrets.token_hex(8)}", point.destination)
            mount = _bind(self._volumes.mounts.take(point.volume, user))
            undo.callback(self._volumes.mounts.give_back, point.volume, user)
        else:
            ensure_bind_source(point)
            mount = _bind(Path(point.source))
        return Point(point.destination, mount, point.subpath, point.rw, point.recursive)


def _bind(source: Path) -> Mount:
    return Mount("bind", str(source), ("bind",))


def _what(path: str) -> str:
    return f"cannot copy {path}"
