"""What a volume driver is: it keeps the data of volumes somewhere on this host.

Names, labels and who uses a volume are the store's; a driver knows a volume by its id, which never changes.
It is only asked for volumes the store knows, and ``ids`` lets the store find what a crash left behind. Its
calls come in this order for one volume::

    create  (mount  unmount)*  remove  discard

A volume is mounted when the first task has it and unmounted after the last: the store counts. ``mount`` and
``unmount`` may be repeated, and may find what they make or remove there already, after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Driver(Protocol):
    """All methods are safe to call from several threads for different volumes."""

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool:
        """Whether another program keeps the data: it may have more than this daemon knows of, and be slow, or
        not answer (:class:`Unavailable`). Nobody else waits for it, and what is not known is not removed."""

    @property
    def scope(self) -> str:
        """``local``, or ``global`` where other hosts see the same volumes."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """:raises InvalidArgument: no such option, or one without its others. :raises Unavailable: the host
        lacks what it needs, named."""

    def create(self, volume_id: str, options: Mapping[str, str]) -> None:
        """Make an empty volume; data that a crash left under that id is gone, unless the driver is remote.

        :raises Internal: the host refuses, with the reason.
        """

    def remove(self, volume_id: str) -> None:
        """Take the data out of the way at once; that there is none is fine."""

    def discard(self) -> None:
        """Delete what was taken out of the way. May take long."""

    def mount(self, volume_id: str, options: Mapping[str, str]) -> Path:
        """Make the data reachable below the directory that is returned.

        :raises InvalidArgument: what the options name is not there. :raises Internal: the host refuses.
        """

    def unmount(self, volume_id: str, options: Mapping[str, str]) -> None:
        """That it is not mounted is fine."""

    def mounted(self) -> set[str]:
        """Volumes that :meth:`mount` has something to take back for."""

    def path(self, volume_id: str) -> Path | None:
        """The directory to mount, None where it is not known before :meth:`mount`."""

    def usage(self, volume_id: str, options: Mapping[str, str]) -> int:
        """Bytes of its files, each counted once; -1 where this host does not keep them."""

    def status(self, volume_id: str) -> Mapping[str, Any]:
        """What else the driver says of the volume."""

    def ids(self) -> set[str]:
        """Every volume there is data of."""
