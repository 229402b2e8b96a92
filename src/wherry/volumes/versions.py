"""Snapshots and clones of volumes that the ``local`` driver keeps as plain directories.

    <root>/<id>/snapshots/<snapshot>/_data     as it was; never written to again
    <root>/<id>/snapshots/<snapshot>/about     the row once more
    <root>/<id>/snapshots/.making-<hex>        being copied
    <root>/<id>/snapshots/.going-<hex>         being removed

Files are cloned if the file system can (FICLONE): then a snapshot needs almost no time and room. Otherwise
they are copied. The row is written after the data. An incomplete snapshot of a killed daemon has a mark
(:mod:`wherry.linux.unsettled`) and no row, and is removed; one with neither is taken up again.

A restore copies the snapshot into a new snapshot, and then exchanges that directory with the volume's in one
atomic step (renameat2(2), RENAME_EXCHANGE): after that, the new snapshot contains the volume's former data.
If the daemon is killed in between, there is one snapshot too many, never one too few.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import copy, files, syscalls, unsettled
from wherry.linux.lostfound import LostFound
from wherry.state.volume_snapshots import MANUAL, RESTORE, SCHEDULE, VolumeSnapshotRow, VolumeSnapshots
from wherry.volumes import descriptions
from wherry.volumes.descriptions import AboutSnapshot
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_DATA, _MAKING, _GOING = "_data", ".making-", ".going-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class VolumeVersions:
    """All methods copy and may take long: call them on a thread; any thread is safe."""

    def __init__(self, store: VolumeStore, rows: VolumeSnapshots) -> None:
        self._store, self._rows = store, rows
        self._lost = LostFound(store.root.parent)

    # ---- snapshots -------------------------------------------------------------------------------------

    def of(self, volume: Volume) -> list[VolumeSnapshotRow]:
        """Oldest first."""
        return self._rows.of(volume.id)

    def check(self, volume: Volume) -> None:
        """:raises InvalidArgument: its driver stores no directory that could be copied."""
        self._directory(volume)

    def get(self, volume: Volume, name: str) -> VolumeSnapshotRow:
        """:raises NotFound: no such snapshot."""
        row = self._rows.find(volume.id, name)
        if row is None:
            raise NotFound(f"no such snapshot of volume {volume.name}: {name}")
        return row

    def path(self, volume: Volume, name: str) -> Path:
        """The directory with its data. :raises NotFound: no such snapshot."""
        return self._directory(volume) / self.get(volume, name).id / _DATA

    def create(
        self, volume: Volume, name: str, *, origin: str = MANUAL, frozen: bool = False
    ) -> VolumeSnapshotRow:
        """Keep the volume's present data as a snapshot.

        :param name: ``""``: the time becomes the name. :param frozen: whether the caller has frozen the
            writers.
        :raises InvalidArgument: an invalid name, or a driver that has no directory to copy.
        :raises Conflict: the name is taken. :raises Unavailable: the disk is full; nothing is left.
        """
        now = time.time_ns()
        name = name or _by_time(now)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid snapshot name {name[:140]!r}")
        if self._rows.find(volume.id, name) is not None:
            raise Conflict(f"volume {volume.name} has a snapshot {name} already")
        row = VolumeSnapshotRow(secrets.token_hex(16), volume.id, name, now, origin, frozen)
        with _explained(f"cannot snapshot volume {volume.name}"), ExitStack() as undo:
            with self._mounted(volume) as source:
                self._keep(volume, row, source, undo)
            undo.pop_all()
        return row

    def remove(self, volume: Volume, name: str) -> None:
        """:raises NotFound: no such snapshot."""
        row = self.get(volume, name)
        directory = self._directory(volume)
        with suppress(OSError):  # gone already, or no room: then a killed daemon leaves it to be taken up
            unsettled.mark(directory / row.id)
        self._rows.delete(row.id)
        with _explained(f"cannot remove snapshot {name} of volume {volume.name}"):
            with suppress(FileNotFoundError):
                (directory / row.id).rename(directory / f"{_GOING}{row.id}")
            files.remove_tree(directory / f"{_GOING}{row.id}")

    def restore(self, volume: Volume, name: str) -> VolumeSnapshotRow:
        """Replace the volume's data by a snapshot's; the former data become a snapshot.

        :returns: that snapshot. :raises NotFound: no such snapshot.
        :raises Conflict: a task has the volume open. :raises Unavailable: the disk is full; nothing changed.
        """
        wanted, target = self.path(volume, name), self._own(volume)
        now = time.time_ns()
        row = VolumeSnapshotRow(secrets.token_hex(16), volume.id, _before(name), now, RESTORE, frozen=True)
        with _explained(f"cannot restore volume {volume.name}"), ExitStack() as undo:
            self._keep(volume, row, wanted, undo)
            with self._store.mounts.alone(volume.id) as alone:
                if not alone:
                    raise Conflict(f"cannot restore volume {volume.name}: a running container has it open")
                syscalls.exchange(self._directory(volume) / row.id / _DATA, target)
                files.sync_file_system(target)
            undo.pop_all()
        return row

    def _keep(self, volume: Volume, row: VolumeSnapshotRow, source: Path, undo: ExitStack) -> None:
        """Copy ``source`` and insert the row. :raises Conflict: the name was taken, or the volume is gone."""
        directory = self._directory(volume)
        directory.mkdir(mode=0o700, exist_ok=True)
        making = directory / f"{_MAKING}{row.id}"
        undo.callback(files.remove_tree, making)
        making.mkdir(mode=0o700)
        unsettled.mark(making)
        descriptions.write(making, AboutSnapshot(row.name, row.created, row.origin, row.frozen))
        (making / _DATA).mkdir(mode=0o700)
        _copy_into(source, making / _DATA)
        files.sync_file_system(directory)
        undo.callback(files.remove_tree, directory / row.id)
        making.rename(directory / row.id)
        if not self._rows.insert(row):
            raise Conflict(
                f"cannot snapshot volume {volume.name}: the name {row.name} was taken, or the volume is gone"
            )
        undo.callback(self._rows.delete, row.id)
        unsettled.settle(directory / row.id)

    def forget_old(self, volume: Volume, keep: int) -> list[str]:
        """Remove the oldest snapshots that the schedule made; returns their names."""
        own = [row for row in self._rows.of(volume.id) if row.origin == SCHEDULE]
        gone = own[: max(0, len(own) - keep)]
        for row in gone:
            self.remove(volume, row.name)
        return [row.name for row in gone]

    # ---- clones ----------------------------------------------------------------------------------------

    def clone(
        self, volume: Volume, name: str, *, snapshot: str = "", labels: Mapping[str, str] | None = None
    ) -> Volume:
        """A new volume with a copy of this one's data, or of one of its snapshots.

        :raises Conflict: the name is taken. :raises NotFound: no such snapshot.
        :raises Unavailable: the disk is full; there is no new volume then.
        """

        def fill(target: Path) -> None:
            with _explained(f"cannot clone volume {volume.name}"):
                if snapshot:
                    _copy_into(self.path(volume, snapshot), target)
                    return
                with self._mounted(volume) as source:
                    _copy_into(source, target)

        return self._store.create_filled(name, labels=volume.labels if labels is None else labels, fill=fill)

    # ---- the file system -------------------------------------------------------------------------------

    def sweep(self) -> list[str]:
        """At start-up: delete incomplete snapshots.

        :returns: lines that say what was found.
        """
        lines = []
        known = self._rows.ids()
        for volume in self._store.list():
            if volume.driver != "local" or volume.mountpoint is None:
                continue
            directory = self._directory(volume)
            for entry in list(directory.iterdir()) if directory.is_dir() else ():
                if (volume.id, entry.name) in known:
                    unsettled.settle(entry)
                elif entry.name.startswith((_MAKING, _GOING)) or unsettled.is_marked(entry):
                    files.remove_tree(entry)
                    lines.append(f"removed a snapshot of volume {volume.name} that was half made")
                else:
                    lines.append(self._take_up(volume, entry))
        return lines

    def _take_up(self, volume: Volume, entry: Path) -> str:
        if not (entry / _DATA).is_dir():
            why = "it does not look like a snapshot"
            return self._lost.set_aside(entry, "volume snapshot", f"{volume.name}:{entry.name}", why)
        about = descriptions.read(entry, AboutSnapshot)
        if about is None or not _NAME.fullmatch(about.name):
            created = entry.stat().st_mtime_ns
            about = AboutSnapshot(f"found-{entry.name[:32]}", created, MANUAL, frozen=False)
        name = about.name
        while self._rows.find(volume.id, name) is not None:
            name = f"{about.name[:100]}-{secrets.token_hex(4)}"
        self._rows.insert(
            VolumeSnapshotRow(entry.name, volume.id, name, about.created, about.origin, about.frozen)
        )
        return f"took up snapshot {name} of volume {volume.name}, which no row knew"

    def _directory(self, volume: Volume) -> Path:
        if volume.driver != "local" or volume.mountpoint is None:
            raise InvalidArgument(f"volume {volume.name} of driver {volume.driver} has no snapshots")
        return volume.mountpoint.parent / "snapshots"

    def _own(self, volume: Volume) -> Path:
        """The directory of a volume that is a plain directory.

        :raises InvalidArgument: its data are elsewhere, where they cannot be exchanged in one step.
        """
        if volume.driver != "local" or volume.mountpoint is None or volume.options.get("device"):
            raise InvalidArgument(f"cannot restore volume {volume.name}: its data are not kept by this host")
        return volume.mountpoint

    @contextmanager
    def _mounted(self, volume: Volume) -> Iterator[Path]:
        user = f"copy-{secrets.token_hex(8)} /"
        path = self._store.mounts.take(volume.id, user)
        try:
            yield path
        finally:
            self._store.mounts.give_back(volume.id, user)


def _by_time(now: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03d}"


def _before(name: str) -> str:
    return f"before-{name[:100]}-{secrets.token_hex(4)}"


def _copy_into(source: Path, target: Path) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as held:
        old, new = os.open(source, flags), -1
        held.callback(os.close, old)
        new = os.open(target, flags)
        held.callback(os.close, new)
        copy.copy_content(old, new, moving=True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        kind = Unavailable if e.errno in _NO_ROOM else Internal
        raise kind(f"{what}: {(e.strerror or str(e)).lower()}") from e
