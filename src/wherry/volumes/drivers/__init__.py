"""What a volume driver is: it keeps the data of named volumes somewhere on this host.

Names, labels and who uses a volume are the store's; a driver is only asked for volumes the store knows, and
``names`` lets the store find what a crash left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Driver(Protocol):
    """All methods are safe to call from several threads for different names."""

    @property
    def name(self) -> str: ...

    def check_options(self, options: Mapping[str, str]) -> None:
        """:raises InvalidArgument: no such option. :raises NotImplemented_: not there yet, named."""

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make an empty volume; data that a crash left under that name is gone.

        :raises Internal: the host refuses, with the reason.
        """

    def remove(self, name: str) -> None:
        """Take the data out of the way at once; that there is none is fine."""

    def discard(self) -> None:
        """Delete what was taken out of the way. May take long."""

    def path(self, name: str) -> Path:
        """The directory to mount."""

    def usage(self, name: str) -> int:
        """Bytes of its files, each counted once."""

    def names(self) -> set[str]:
        """Every volume there is data of."""
