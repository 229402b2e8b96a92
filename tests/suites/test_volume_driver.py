"""The volume driver suite on every driver."""

from __future__ import annotations

from pathlib import Path

from volume_driver import VolumeDriverSuite

from wherry.volumes.drivers.local import LocalDriver


def _local(directory: Path) -> LocalDriver:
    return LocalDriver(directory / "volumes")


class TestLocal(VolumeDriverSuite):
    make = staticmethod(_local)
