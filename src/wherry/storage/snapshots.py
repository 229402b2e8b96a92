"""Snapshots: the file systems of layers and of containers, as a tree of parents.

A tutorial in four calls. To unpack a layer on top of another one::

    mounts = snapshotter.prepare("unpack-1", parent="sha256:aaa…")   # writable, over the parent
    …                                                                # mount it or write to it
    snapshotter.commit("sha256:bbb…", "unpack-1")                    # read-only now, and a parent itself

and to run a container on that::

    mounts = snapshotter.prepare(container_id, parent="sha256:bbb…")
    mount(mounts[0], rootfs)                                         # again: mounts(container_id)
    snapshotter.remove(container_id)

A *key* names an active snapshot, a *name* a committed one; both live in one space. Mounts are values:
nothing is mounted by a snapshotter. A driver that says ``rebase`` unpacks every layer on its own, without
its parent, and gives it one at commit; so the layers of an image need not wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wherry.model.mount import Mount

ACTIVE, VIEW, COMMITTED = "active", "view", "committed"
UNPACK_PREFIX = "unpack-"
"""The prefix of keys for layers that are being unpacked; a killed daemon's are swept at the next start."""


@dataclass(frozen=True)
class SnapshotInfo:
    """``parent`` is a committed name; ``created`` in nanoseconds since the epoch."""

    key: str
    kind: str
    parent: str | None
    created: int


@dataclass(frozen=True)
class SnapshotUsage:
    """Bytes on disk and inodes of one snapshot, without its parents."""

    bytes: int
    inodes: int


class Snapshotter(Protocol):
    """A driver. Safe to use from any thread."""

    name: str
    rebase: bool

    def prepare(self, key: str, parent: str | None = None) -> list[Mount]:
        """Make a writable snapshot. :raises Conflict: ``key`` exists. :raises NotFound: no such parent."""

    def view(self, key: str, parent: str | None = None) -> list[Mount]:
        """Make a read-only view of ``parent``; otherwise as :meth:`prepare`."""

    def mounts(self, key: str) -> list[Mount]:
        """The mounts of an active snapshot or a view. :raises NotFound: there is none with this key."""

    def sync(self) -> None:
        """Returns when the files of every snapshot would survive a power cut. :raises Internal: the device
        fails."""

    def commit(
        self,
        name: str,
        key: str,
        *,
        parent: str | None = None,
        usage: SnapshotUsage | None = None,
        synced: bool = False,
        unnamed: Collection[bytes] = (),
    ) -> None:
        """Make an active snapshot permanent under ``name``; from then on its files survive a power cut.

        :param synced: whether the caller called :meth:`sync` after the snapshot was complete.

        :param parent: with ``rebase`` drivers, the parent it gets if it was prepared without one.
        :param unnamed: directories that it holds and were not named; those of a parent given now take the
            owner and mode that the parent's have.
        :param usage: the usage, if the caller knows it; else it is measured.
        :raises NotFound: ``key`` is not active. :raises Conflict: ``name`` exists.
        """

    def has_files(self, key: str, *, parents: bool = False) -> bool:
        """Whether a snapshot has a row and its files exist;
        with ``parents`` also those of all its parents."""

    def replace_lost(self, name: str, key: str) -> bool:
        """Give the files of an active snapshot to a committed one that has lost its files; the active one is
        removed. ``False`` if nothing was lost. Snapshots based on it find the files at the same place."""

    def rename(self, old: str, new: str) -> bool:
        """Give a committed snapshot another name; ``False`` if that is taken.

        :raises NotFound: it is not there, or not committed.
        """

    def remove(self, key: str) -> None:
        """:raises NotFound: no such snapshot. :raises Conflict: it has children."""

    def settle(self, key: str) -> None:
        """The owner of an active snapshot has a row now. Until then the snapshot is incomplete: if the daemon
        is killed, the next start removes it; afterwards it is never removed that way.
        :raises NotFound: no such snapshot."""

    def unsettle(self, key: str) -> None:
        """Its owner's row is about to be deleted. :raises NotFound: no such snapshot."""

    def is_settled(self, key: str) -> bool:
        """Whether it has files that belong to its owner. :raises NotFound: no such snapshot."""

    def set_aside(self, key: str, why: str) -> str:
        """Move its files to lost+found, and delete its row; returns a line that says so.

        :raises NotFound: no such snapshot. :raises Conflict: it has children."""

    def stat(self, key: str) -> SnapshotInfo:
        """:raises NotFound: no such snapshot."""

    def usage(self, key: str) -> SnapshotUsage:
        """Measured now for active snapshots, stored for committed ones.
        :raises NotFound: no such snapshot."""

    def walk(self) -> list[SnapshotInfo]:
        """Every snapshot, parents first."""

    def directories(self, key: str) -> tuple[Path, Path | None]:
        """The input of :mod:`wherry.storage.diff`: the snapshot's own files, and its parent's whole tree if
        the former include the parent's (``None``: they are only the differences)."""

    def collect(self) -> tuple[int, int]:
        """Remove committed snapshots that nothing needs; return their number, and their size in bytes."""

    def problems(self) -> dict[str, str]:
        """Key of every committed snapshot whose files have changed -> a description of the problem.

        The number and size of files are compared, not their content."""

    def cleanup(self) -> int:
        """At start-up: remove incomplete and half removed snapshots; take up complete ones without a row, or
        set them aside; return how many directories were removed."""
