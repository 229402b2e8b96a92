"""The volume driver Protocol: a driver stores the data of volumes somewhere on this host.

The store knows names, labels and users of volumes. A driver knows a volume only by its id, which never
changes. It is called only for volumes that the store knows; ``ids`` lets the store find what a crash left
behind. For one volume its methods are called in this order::

    create  (mount  unmount)*  remove  discard

A volume is mounted for the first task that uses it and unmounted after the last one: the store counts.
``mount`` and ``unmount`` may be called again, and after a crash may find their work done already.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class VolumeDriver(Protocol):
    """All methods may be called from several threads at once for different volumes."""

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool:
        """Whether another program stores the data: it may have volumes that this daemon does not know, be
        slow, or not answer (:class:`Unavailable`). Calls for other volumes do not wait for it, and unknown
        volumes are not removed."""

    @property
    def scope(self) -> str:
        """``local``; or ``global`` if other hosts see the same volumes."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """:raises InvalidArgument: an unknown option, or one that needs others. :raises Unavailable: the host
        lacks something that it needs; the text names it."""

    def create(self, volume_id: str, options: Mapping[str, str]) -> None:
        """Make an empty volume. An incomplete volume that a crash left under that id is removed first, unless
        the driver is remote; any other data there are set aside.

        :raises Internal: the host refuses, with the reason.
        """

    def remove(self, volume_id: str) -> None:
        """Move the data out of the way at once; if there are none, nothing happens."""

    def discard(self) -> None:
        """Delete the data that were moved out of the way. May take long."""

    def mount(self, volume_id: str, options: Mapping[str, str]) -> Path:
        """Make the data available below the directory that is returned.

        :raises InvalidArgument: the source in the options does not exist. :raises Internal: the host refuses.
        """

    def unmount(self, volume_id: str, options: Mapping[str, str]) -> None:
        """If it is not mounted, nothing happens."""

    def mounted(self) -> set[str]:
        """Volumes for which :meth:`mount` has done something that must be undone."""

    def path(self, volume_id: str) -> Path | None:
        """The directory to mount; None if it is not known before :meth:`mount`."""

    def usage(self, volume_id: str, options: Mapping[str, str]) -> int:
        """Bytes of its files, each counted once; -1 if this host does not store them."""

    def status(self, volume_id: str) -> Mapping[str, Any]:
        """Further facts that the driver reports about the volume."""

    def ids(self) -> set[str]:
        """Every volume that has data."""
