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

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wherry.model.mount import Mount

ACTIVE, VIEW, COMMITTED = "active", "view", "committed"
UNPACK_PREFIX = "unpack-"
"""Keys of layers that are being unpacked; those of a daemon that died are swept at the next start."""


@dataclass(frozen=True)
class SnapshotInfo:
    """``parent`` is a committed name; ``created`` in nanoseconds since the epoch."""

    key: str
    kind: str
    parent: str | None
    created: int


@dataclass(frozen=True)
class Usage:
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
        """Make a read-only look at ``parent``; otherwise as :meth:`prepare`."""

    def mounts(self, key: str) -> list[Mount]:
        """The mounts of an active snapshot or a view. :raises NotFound: it is neither."""

    def commit(self, name: str, key: str, *, parent: str | None = None, usage: Usage | None = None) -> None:
        """Make an active snapshot permanent under ``name``.

        :param parent: with ``rebase`` drivers, the parent it gets if it was prepared without one.
        :param usage: if the caller knows; measured otherwise.
        :raises NotFound: ``key`` is not active. :raises Conflict: ``name`` exists.
        """

    def rename(self, old: str, new: str) -> bool:
        """Give a committed snapshot another name; ``False`` when that is taken.

        :raises NotFound: it is not there, or not committed.
        """

    def remove(self, key: str) -> None:
        """:raises NotFound: no such snapshot. :raises Conflict: it has children."""

    def stat(self, key: str) -> SnapshotInfo:
        """:raises NotFound: no such snapshot."""

    def usage(self, key: str) -> Usage:
        """Measured now for active ones, remembered for committed ones. :raises NotFound: no such snapshot."""

    def walk(self) -> list[SnapshotInfo]:
        """Every snapshot, parents first."""

    def directories(self, key: str) -> tuple[Path, Path | None]:
        """What :mod:`wherry.storage.diff` compares: the snapshot's own files, and its parent's whole tree
        if they hold that as well (``None``: they are the difference already)."""

    def collect(self) -> tuple[int, int]:
        """Remove committed snapshots nothing needs; return how many, and the bytes they had."""

    def problems(self) -> dict[str, str]:
        """Key of every committed snapshot whose files are not what they were -> what is wrong, in words.

        Their number and size are compared, not their content."""

    def cleanup(self) -> int:
        """Remove unfinished unpacking and directories without a row; return how many directories went."""
