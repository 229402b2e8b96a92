"""Keeps directories of local volumes and their rows consistent: marks, descriptions beside the data, and the
handling of directories without a row at start-up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

from wherry.errors import Unavailable
from wherry.linux import unsettled
from wherry.linux.lostfound import LostFound
from wherry.state.volumes import VolumeRow, Volumes
from wherry.volumes import descriptions
from wherry.volumes.descriptions import AboutVolume
from wherry.volumes.types import ANONYMOUS_LABEL, NAME, NAME_MAX


class Keeping:
    """Safe to use from any thread. Volumes of plugins have no directory here; for them nothing happens."""

    def __init__(self, root: Path, rows: Volumes) -> None:
        """:param root: ``<root>/volumes``."""
        self._root, self._rows = root, rows

    def describe(self, row: VolumeRow) -> None:
        """:raises Unavailable: no room."""
        about = AboutVolume(row.name, row.created, dict(row.options), dict(row.labels))
        try:
            descriptions.write(self._root / row.id, about)
        except OSError as e:
            raise Unavailable(f"cannot describe volume {row.name}: {e.strerror or e}") from e

    def settle(self, volume_id: str) -> None:
        """The volume's first user has a row now. An anonymous volume that was made together with its user is
        incomplete until then: if the user is never completed, the next start removes the volume."""
        unsettled.settle(self._root / volume_id)

    def unsettle(self, volume_id: str) -> None:
        """Its row may be about to be deleted: the mark identifies a killed daemon's leftovers."""
        with suppress(OSError):  # no room: then a killed daemon's data will be taken up
            unsettled.mark(self._root / volume_id)

    def is_settled(self, volume_id: str) -> bool:
        return not unsettled.is_marked(self._root / volume_id)

    def take_up(self, found: Set[str]) -> Iterator[str]:
        """Restore the rows of complete directories without one, from the description beside the data; set
        aside what does not look like a volume.

        :param found: ids of the existing directories. Yields lines that say what was done.
        """
        rows = {row.id: row for row in self._rows.all()}
        for volume_id in found & rows.keys():
            if ANONYMOUS_LABEL not in rows[volume_id].labels:
                self.settle(volume_id)
            if rows[volume_id].driver == "local" and not descriptions.is_there(self._root / volume_id):
                self.describe(rows[volume_id])  # it is older than descriptions, or a power cut destroyed it
        for volume_id in sorted(found - rows.keys()):
            if self.is_settled(volume_id):
                yield self._take_up(volume_id)

    def _take_up(self, volume_id: str) -> str:
        directory = self._root / volume_id
        if not (directory / "_data").is_dir() or not NAME.fullmatch(volume_id):
            if not any(directory.iterdir()):
                directory.rmdir()
                return f"removed an empty directory among the volumes: {volume_id[:80]}"
            why = "it does not look like a volume"
            return LostFound(self._root.parent).set_aside(directory, "volume", volume_id, why)
        about = descriptions.read(directory, AboutVolume)
        if about is None or not NAME.fullmatch(about.name):
            about = AboutVolume(volume_id, directory.stat().st_mtime_ns, {}, {})
        name = about.name
        while self._rows.find(name) is not None:
            name = f"{about.name[: NAME_MAX - 9]}.{secrets.token_hex(4)}"
        row = VolumeRow(volume_id, name, "local", about.created, about.options, about.labels)
        self._rows.insert(row)
        self.describe(row)
        return f"took up volume {name}, which no row knew"
