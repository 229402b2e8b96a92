"""Volumes: rows here, data with the drivers.

Users know a volume by its name, which may change. Everything permanent (containers' records, drivers, the
directory) uses its id, which never changes.

A removal deletes the row and moves the data out of the way under one lock. So a new volume with the same id
never sees the old data. Deleting the data comes later and may be interrupted. The users of a volume are rows
too, so that a volume in use cannot be removed, whatever happens at the same time. Which tasks have it mounted
is only in memory:
:mod:`wherry.volumes.mounted`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.linux.files import sync_file_system
from wherry.linux.plugins import Plugins
from wherry.state.volumes import VolumeRow, Volumes, VolumeUser
from wherry.volumes import fill
from wherry.volumes.drivers import VolumeDriver
from wherry.volumes.drivers.local import LocalDriver
from wherry.volumes.drivers.plugin import PluginDriver
from wherry.volumes.keeping import Keeping
from wherry.volumes.mounted import Mounts, Turns
from wherry.volumes.types import ANONYMOUS_LABEL, NAME, NAME_MAX, Volume


@dataclass(frozen=True)
class PrunedVolumes:
    name: str
    size: int


def check_name(name: str) -> str:
    """:raises InvalidArgument: an invalid name, with Docker's message."""
    if len(name) == 1:
        raise InvalidArgument(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not NAME.fullmatch(name) or len(name) > NAME_MAX:
        raise InvalidArgument(
            f'"{name[:300]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
    return name


class VolumeStore:
    """Safe to use from any thread."""

    def __init__(self, root: Path, repository: Volumes, plugins: Plugins | None = None) -> None:
        """:param root: ``<root>/volumes``; created if it does not exist.
        :param plugins: those of this host."""
        self._rows = repository
        self.keeping = Keeping(root, repository)
        self.root = root
        self._plugins = plugins or Plugins()
        self._turns = Turns()
        self._lock = threading.Lock()
        self._filling: set[str] = set()
        local = LocalDriver(root)
        self._drivers: dict[str, VolumeDriver] = {local.name: local}
        self.mounts = Mounts(self._mount, self._unmount)

    # ---- by name ---------------------------------------------------------------------------------------

    def create(
        self,
        name: str | None,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Volume:
        """Make a volume, or return the existing one with that name and driver.

        :param driver: empty: that of the existing volume, else ``local``.
        :param name: empty or None: an anonymous volume, with 64 hex digits as its name and a label.
        :param user: a container that uses it from the first moment, as with :meth:`acquire`.
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
        if not driver:
            there = self._rows.find(name)
            driver = there.driver if there is not None else "local"
        wanted = VolumeRow("", name, driver, time.time_ns(), dict(options or {}), given)
        if wanted.driver not in self._drivers or self._drivers[wanted.driver].remote:
            return self._volume(self._create_remote(wanted, user))
        keeper = self._drivers[wanted.driver]
        with self._lock:
            row = self._existing(wanted, user)
            if row is None:
                row = replace(wanted, id=self._free_id(name))
                try:
                    keeper.create(row.id, row.options)
                except InvalidArgument as e:
                    raise InvalidArgument(f"create {name}: {e.message}") from e
                try:
                    self.keeping.describe(row)
                    self._rows.insert(row, user)
                except BaseException:
                    keeper.remove(row.id)
                    raise
                if user is None or ANONYMOUS_LABEL not in row.labels:
                    self.keeping.settle(row.id)
        return self._volume(row)

    def _existing(self, wanted: VolumeRow, user: str | None) -> VolumeRow | None:
        """The existing volume with that name and driver; ``user`` uses it from now on.

        :raises Conflict: it has another driver.
        """
        existing = self._rows.find(wanted.name)
        if existing is None:
            return None
        if existing.driver != wanted.driver:
            raise Conflict(f"create {wanted.name}: conflict: volume name must be unique")
        if user is not None:
            self._rows.add_user(existing.id, user)
        return existing

    def _create_remote(self, wanted: VolumeRow, user: str | None) -> VolumeRow:
        """A plugin may be slow: only callers with the same name wait for it."""
        with self._turns.of(wanted.name):
            with self._lock:
                existing = self._existing(wanted, user)
                if existing is not None:
                    return existing
                row = replace(wanted, id=self._free_id(wanted.name))
            try:
                # Remember something only if the plugin exists and the name is valid.
                self._plugins.find(row.driver, "VolumeDriver")
            except NotFound as e:
                raise NotFound(
                    f"create {row.name}: error looking up volume plugin {row.driver}: {e.message}"
                ) from e
            keeper = self._driver(row.driver)
            try:
                keeper.create(row.id, row.options)
            except WherryError as e:
                raise type(e)(f"create {row.name}: {e.message}") from e
            with self._lock:
                # Do not delete it at the plugin: the plugin may have had the volume before.
                if not self._rows.insert(row, user):
                    raise Conflict(f"create {row.name}: conflict: volume name must be unique")
        return row

    def create_filled(self, name: str, *, labels: Mapping[str, str], fill: Callable[[Path], None]) -> Volume:
        """Make a local volume that others see only after ``fill`` has written its data.

        :param fill: gets the empty directory; if it raises, nothing is left behind.
        :raises InvalidArgument: an invalid name. :raises Conflict: the name is taken.
        """
        try:
            check_name(name)
        except InvalidArgument as e:
            raise InvalidArgument(f"create {name[:300]}: {e.message}") from e
        taken = Conflict(f"create {name}: conflict: volume name must be unique")
        keeper = self._drivers["local"]
        with self._lock:
            if self._rows.find(name) is not None:
                raise taken
            volume_id = self._free_id(name)
            self._filling.add(volume_id)
        try:
            keeper.create(volume_id, {})
            fill(keeper.mount(volume_id, {}))
            sync_file_system(self.root)
            given = {key: value for key, value in labels.items() if key != ANONYMOUS_LABEL}
            row = VolumeRow(volume_id, name, keeper.name, time.time_ns(), {}, given)
            with self._lock:
                self.keeping.describe(row)
                if self._rows.find(name) is not None or not self._rows.insert(row):
                    raise taken
                self.keeping.settle(volume_id)
        except BaseException:
            keeper.remove(volume_id)
            keeper.discard()
            raise
        finally:
            self._filling.discard(volume_id)
        return self._volume(row)

    def _free_id(self, name: str) -> str:
        """The name itself, unless a renamed volume still has it as its id."""
        volume_id = name
        while volume_id in self._filling or self._rows.by_id(volume_id) is not None:
            volume_id = f"{name[: NAME_MAX - 9]}.{secrets.token_hex(4)}"
        return volume_id

    def get(self, name: str) -> Volume:
        """:raises NotFound: no such volume."""
        row = self._rows.find(name)
        if row is None:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(row)

    def list(self) -> list[Volume]:
        """Every volume, by name."""
        return [self._volume(row) for row in self._rows.all()]

    def rename(self, name: str, new: str) -> Volume:
        """Rename a volume, even while containers use it: they know it by its id.

        :raises NotFound: no such volume. :raises InvalidArgument: a bad name.
        :raises Conflict: the name is taken.
        """
        check_name(new)
        with self._lock:
            volume = self.get(name)
            if new != name and not self._rows.rename(volume.id, new):
                raise Conflict(f"rename {name}: the name {new} is in use by another volume")
            if not self._driver(volume.driver).remote:
                self.keeping.describe(self._row(volume.id))
        return self.get(new)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its data.

        :param force: if there is none, that is no error.
        :raises NotFound: no such volume. :raises Conflict: containers use it; the text names them.
        """
        row = self._rows.find(name)
        if row is None:
            if not force:
                raise NotFound(f"get {name}: no such volume")
            return
        if not self._remove(row, force=force):
            users = ", ".join(user.container_id for user in self._rows.users(row.id))
            raise Conflict(f"remove {name}: volume is in use - [{users or 'its files are being copied'}]")
        self._discard()

    def prune(
        self, *, all_volumes: bool = False, wanted: Callable[[Volume], bool] = lambda _: True
    ) -> tuple[PrunedVolumes, ...]:
        """Remove unused volumes: anonymous ones, with ``all_volumes`` also named ones.

        :param wanted: a further condition, a label filter for instance.
        """
        removed = []
        used = self.used()
        for row in self._rows.all():
            volume = self._volume(row)
            if row.id in used or not (all_volumes or volume.anonymous) or not wanted(volume):
                continue
            size = max(0, self.usage(row.id))
            if self._remove(row):
                removed.append(PrunedVolumes(volume.name, size))
        self._discard()
        return tuple(removed)

    # ---- by id -----------------------------------------------------------------------------------------

    def by_id(self, volume_id: str) -> Volume:
        """:raises NotFound: no such volume."""
        return self._volume(self._row(volume_id))

    def name_of(self, volume_id: str) -> str | None:
        """The present name of a volume; None if no volume has that id."""
        return self._rows.name_of(volume_id)

    def usage(self, volume_id: str) -> int:
        """Bytes of a volume's files, each counted once; -1 if this host does not store them.

        :raises NotFound: no such volume.
        """
        row = self._row(volume_id)
        return self._driver(row.driver).usage(volume_id, row.options)

    def status(self, volume_id: str) -> Mapping[str, Any]:
        """The driver's report about the volume. :raises NotFound: no such volume.
        :raises Unavailable, Internal: a plugin does not answer, or refuses."""
        return self._driver(self._row(volume_id).driver).status(volume_id)

    def acquire(self, volume_id: str, container_id: str) -> None:
        """Record that a container uses the volume, until :meth:`release`. Idempotent.

        :raises NotFound: no such volume.
        """
        if not self._rows.add_user(volume_id, container_id):
            raise NotFound(f"get {volume_id}: no such volume")

    def release(self, volume_id: str, container_id: str) -> None:
        """If the container does not use it, nothing happens."""
        self._rows.remove_user(volume_id, container_id)

    def release_last(self, volume_id: str, container_id: str) -> bool:
        """Release a volume, and delete its row if nobody else uses it; :meth:`remove_data` removes its data.

        Only rows change, so it can be part of a transaction. :returns: whether the row was deleted.
        """
        self._rows.remove_user(volume_id, container_id)
        return self._rows.delete_unused(volume_id)

    def remove_data(self, forgotten: Mapping[str, str]) -> None:
        """Remove the data of volumes whose rows were deleted; a new volume with the same id keeps its data.

        :param forgotten: their drivers by their ids.
        :raises Unavailable, Internal: a plugin did not remove its volume; all others are removed.
        """
        failure: WherryError | None = None
        for volume_id, name in forgotten.items():
            driver = self._driver(name)
            try:
                with self._turns.of(volume_id) if driver.remote else self._lock:
                    if self._rows.by_id(volume_id) is None:
                        driver.remove(volume_id)
            except WherryError as e:
                failure = e
        self._discard()
        if failure is not None:
            raise failure

    def references(self, volume_id: str) -> tuple[VolumeUser, ...]:
        """The containers that use the volume."""
        return tuple(self._rows.users(volume_id))

    def used(self) -> set[str]:
        """Ids of the volumes that containers use."""
        return self._rows.used()

    def copy_up(self, source_root: Path | int, inner_path: str, driver: str, path: Path) -> None:
        """:func:`wherry.volumes.fill.copy_up`, for a volume of ``driver`` that is mounted at ``path``."""
        marked = not self._driver(driver or "local").remote
        fill.copy_up(source_root, inner_path, path, marked=marked)

    # ---- the kernel ------------------------------------------------------------------------------------

    def _mount(self, volume_id: str) -> Path:
        row = self._row(volume_id)
        return self._driver(row.driver).mount(volume_id, row.options)

    def _unmount(self, volume_id: str) -> None:
        row = self._rows.by_id(volume_id)
        if row is not None:
            self._driver(row.driver).unmount(volume_id, row.options)

    def sweep(self) -> tuple[str, ...]:
        """At start-up, before any container can write, after :meth:`take_up` and after running containers
        were adopted: delete incomplete and half removed volumes, make missing directories, empty volumes
        whose copy-up was interrupted, unmount what no task uses.

        :returns: lines that say what was found.
        """
        lines = []
        with self._lock:
            rows = {row.id: row for row in self._rows.all()}
            for driver in [d for d in self._drivers.values() if not d.remote]:
                found = driver.ids()
                for volume_id in sorted(found - rows.keys()):
                    if not self.keeping.is_settled(volume_id):
                        driver.remove(volume_id)
                        lines.append(f"removed volume {volume_id}, which was half made or half removed")
                for volume_id in sorted(rows.keys() - found):
                    if rows[volume_id].driver == driver.name:
                        driver.create(volume_id, rows[volume_id].options)
                        self.keeping.describe(rows[volume_id])
                        self.keeping.settle(volume_id)
                        name = rows[volume_id].name
                        lines.append(f"the data of volume {name} was gone: made an empty one")
                for volume_id in sorted(driver.mounted() & rows.keys() - self.mounts.ids()):
                    driver.unmount(volume_id, rows[volume_id].options)
                    lines.append(f"unmounted volume {rows[volume_id].name}, which no container has open")
            for volume_id, row in rows.items():
                driver = self._driver(row.driver)
                path = None if driver.remote else driver.path(volume_id)
                if path is not None and volume_id not in self.mounts.ids() and fill.recover(path):
                    lines.append(f"emptied volume {row.name}, which was being filled when the daemon ended")
        lines += self._sweep_remote(rows)
        self._discard()
        return tuple(lines)

    def take_up(self) -> Iterator[str]:
        """At start-up: restore the rows of directories without one, or set them aside; see
        :meth:`Keeping.take_up`."""
        with self._lock:
            yield from self.keeping.take_up(self._drivers["local"].ids())

    def take_back(self, data: Path, name: str, labels: Mapping[str, str]) -> Volume:
        """Make a volume of a file or directory that was set aside; the data are moved.

        :raises InvalidArgument: a bad name. :raises Conflict: the name is taken.
        """

        def fill(target: Path) -> None:
            try:
                if data.is_dir() and not data.is_symlink():
                    target.rmdir()
                    data.rename(target)
                else:
                    data.rename(target / data.name)
            except OSError as e:
                raise Internal(f"cannot take back {name}: {e.strerror or e}") from e

        return self.create_filled(name, labels=labels, fill=fill)

    def _sweep_remote(self, rows: Mapping[str, VolumeRow]) -> Iterator[str]:
        """Have plugins unmount what no task uses; a plugin that does not answer is asked only once."""
        for driver in [d for d in self._drivers.values() if d.remote]:
            for volume_id in sorted(driver.mounted() & rows.keys() - self.mounts.ids()):
                try:
                    driver.unmount(volume_id, rows[volume_id].options)
                    yield f"unmounted volume {rows[volume_id].name}, which no container has open"
                except (Unavailable, NotFound) as e:
                    yield f"cannot unmount volume {rows[volume_id].name}: {e.message}"
                    break
                except WherryError as e:
                    yield f"cannot unmount volume {rows[volume_id].name}: {e.message}"

    def _driver(self, name: str) -> VolumeDriver:
        """A volume's driver; if its plugin is missing, that shows when it is called."""
        driver = self._drivers.get(name)
        if driver is None:
            driver = self._drivers.setdefault(name, PluginDriver(name, self._plugins, self.root))
        return driver

    def drivers(self) -> tuple[str, ...]:
        """``local``, and the drivers of the existing volumes."""
        return tuple(dict.fromkeys(("local", *sorted(row.driver for row in self._rows.all()))))

    def _row(self, volume_id: str) -> VolumeRow:
        row = self._rows.by_id(volume_id)
        if row is None:
            raise NotFound(f"get {volume_id}: no such volume")
        return row

    def _remove(self, row: VolumeRow, *, force: bool = False) -> bool:
        """:param force: ignore errors of the plugin, and delete the row here.
        :returns: False if there is no such volume, or a container uses it.
        """
        driver = self._driver(row.driver)
        if driver.remote:
            return self._remove_remote(driver, row, force=force)
        with self._lock:
            if row.id in self.mounts.ids():
                return False
            self.keeping.unsettle(row.id)
            if not self._rows.delete_unused(row.id):
                self.keeping.settle(row.id)
                return False
            driver.remove(row.id)
            return True

    def _remove_remote(self, driver: VolumeDriver, row: VolumeRow, *, force: bool) -> bool:
        with self._turns.of(row.name), self._turns.of(row.id) if row.id != row.name else nullcontext():
            with self._lock:
                if row.id in self.mounts.ids() or not self._rows.delete_unused(row.id):
                    return False
            try:
                driver.remove(row.id)
            except WherryError:
                if not force:
                    with self._lock:
                        self._rows.insert(row)
                    raise
            return True

    def _discard(self) -> None:
        for driver in list(self._drivers.values()):
            driver.discard()

    def _volume(self, row: VolumeRow) -> Volume:
        driver = self._driver(row.driver)
        return Volume(
            id=row.id,
            name=row.name,
            driver=row.driver,
            created=row.created,
            options=row.options,
            labels=row.labels,
            mountpoint=driver.path(row.id),
            scope=driver.scope,
        )
