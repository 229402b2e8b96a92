"""Volumes by name: rows here, data with the drivers.

Removal deletes the row and moves the data out of the way under one lock, so that a volume made anew under the
same name never sees it; deleting it comes later and may be cut short. Who uses a volume is a row too, so that
a volume in use cannot be removed whatever happens at the same time.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.state.volumes import VolumeRow, Volumes
from wherry.volumes import fill
from wherry.volumes.drivers import Driver
from wherry.volumes.drivers.local import LocalDriver
from wherry.volumes.types import ANONYMOUS_LABEL, Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_MAX = 255


@dataclass(frozen=True)
class Pruned:
    name: str
    size: int


def check_name(name: str) -> str:
    """:raises InvalidArgument: the name is none, in Docker's words."""
    if len(name) == 1:
        raise InvalidArgument(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        raise InvalidArgument(
            f'"{name[:300]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
    return name


class VolumeStore:
    """Safe to use from any thread."""

    def __init__(self, root: Path, repository: Volumes) -> None:
        """:param root: ``<root>/volumes``; made if it is not there."""
        self._rows = repository
        self._lock = threading.Lock()
        local = LocalDriver(root)
        self._drivers: dict[str, Driver] = {local.name: local}

    def create(
        self,
        name: str | None,
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name and driver.

        :param name: empty or None for an anonymous one: 64 hex digits and a label that says so.
        :param user: a container that has it from the first moment on, as with :meth:`acquire`.
        :raises InvalidArgument: a bad name or option.
        :raises NotFound: no such driver.
        :raises Conflict: the name is taken by a volume of another driver.
        """
        given = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            given[ANONYMOUS_LABEL] = ""
        try:
            check_name(name)
        except InvalidArgument as e:
            raise InvalidArgument(f"create {name[:300]}: {e.message}") from e
        keeper = self._drivers.get(driver or "local")
        if keeper is None:
            raise NotFound(
                f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            )
        with self._lock:
            existing = self._rows.find(name)
            if existing is not None:
                if existing.driver != keeper.name:
                    raise Conflict(f"create {name}: conflict: volume name must be unique")
                if user is not None:
                    self._rows.add_user(name, user)
                return self._volume(existing)
            keeper.create(name, options or {})
            row = VolumeRow(name, keeper.name, time.time_ns(), dict(options or {}), given)
            self._rows.insert(row, user)
        return self._volume(row)

    def get(self, name: str) -> Volume:
        """:raises NotFound: no such volume."""
        row = self._rows.find(name)
        if row is None:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(row)

    def list(self) -> list[Volume]:
        """Every volume, by name."""
        return [self._volume(row) for row in self._rows.all()]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its data.

        :param force: that there is none is fine.
        :raises NotFound: no such volume. :raises Conflict: containers use it; the text names them.
        """
        if not self._remove(name):
            users = self._rows.users(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            if not force:
                raise NotFound(f"get {name}: no such volume")
        self._discard()

    def prune(
        self, *, all_volumes: bool = False, wanted: Callable[[Volume], bool] = lambda _: True
    ) -> tuple[Pruned, ...]:
        """Remove what no container uses: anonymous volumes, with ``all_volumes`` named ones too.

        :param wanted: a further condition, a label filter for instance.
        """
        removed = []
        for volume in self.list():
            if not (all_volumes or volume.anonymous) or not wanted(volume) or self.references(volume.name):
                continue
            size = self.usage(volume.name)
            if self._remove(volume.name):
                removed.append(Pruned(volume.name, size))
        self._discard()
        return tuple(removed)

    def usage(self, name: str) -> int:
        """Bytes of a volume's files, each counted once.

        :raises NotFound: no such volume.
        """
        volume = self.get(name)
        return self._drivers[volume.driver].usage(name)

    def path(self, name: str) -> Path:
        """The directory to mount.

        :raises NotFound: no such volume.
        """
        return self.get(name).mountpoint

    def acquire(self, name: str, container_id: str) -> None:
        """Note that a container has the volume, until :meth:`release`. Idempotent.

        :raises NotFound: no such volume.
        """
        if not self._rows.add_user(name, container_id):
            raise NotFound(f"get {name}: no such volume")

    def release(self, name: str, container_id: str) -> None:
        """That it does not have it is fine."""
        self._rows.remove_user(name, container_id)

    def release_last(self, name: str, container_id: str) -> bool:
        """Release a volume, and forget it if nobody else has it; its data go with :meth:`remove_data`.

        Rows only, so that it can be part of a transaction. :returns: whether it is forgotten.
        """
        self._rows.remove_user(name, container_id)
        return self._rows.delete_unused(name)

    def remove_data(self, names: Iterable[str]) -> None:
        """Remove the data of volumes that were forgotten; one made anew under the name keeps its own."""
        for name in names:
            with self._lock:
                if self._rows.find(name) is None:
                    for driver in self._drivers.values():
                        driver.remove(name)
        self._discard()

    def references(self, name: str) -> tuple[str, ...]:
        """Ids of the containers that have the volume."""
        return tuple(self._rows.users(name))

    def used_by(self, container_id: str) -> tuple[str, ...]:
        """Names of the volumes a container has."""
        return tuple(self._rows.used_by(container_id))

    def copy_up(self, source_root: Path | int, inner_path: str, volume_path: Path) -> None:
        """:func:`wherry.volumes.fill.copy_up`."""
        fill.copy_up(source_root, inner_path, volume_path)

    def sweep(self) -> tuple[str, ...]:
        """At start-up, before any container can write: delete data of volumes that have no row, make
        directories that rows lack, empty volumes whose filling was cut short.

        :returns: lines that say what was found.
        """
        lines = []
        with self._lock:
            rows = {row.name: row for row in self._rows.all()}
            for driver in self._drivers.values():
                found = driver.names()
                for name in sorted(found - rows.keys()):
                    driver.remove(name)
                    lines.append(f"removed the data of volume {name}, which is not known")
                for name in sorted(rows.keys() - found):
                    if rows[name].driver == driver.name:
                        driver.create(name, rows[name].options)
                        lines.append(f"the data of volume {name} was gone: made an empty one")
            for name, row in rows.items():
                if fill.recover(self._drivers[row.driver].path(name)):
                    lines.append(f"emptied volume {name}, which was being filled when the daemon ended")
        self._discard()
        return tuple(lines)

    def _remove(self, name: str) -> bool:
        """:returns: False if there is no such volume, or a container has it."""
        with self._lock:
            row = self._rows.find(name)
            if row is None or not self._rows.delete_unused(name):
                return False
            self._drivers[row.driver].remove(name)
            return True

    def _discard(self) -> None:
        for driver in self._drivers.values():
            driver.discard()

    def _volume(self, row: VolumeRow) -> Volume:
        return Volume(
            name=row.name,
            driver=row.driver,
            created=row.created,
            options=row.options,
            labels=row.labels,
            mountpoint=self._drivers[row.driver].path(row.name),
        )
