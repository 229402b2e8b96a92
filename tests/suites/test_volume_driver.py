"""The volume driver suite on every driver."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from exampleplugin import ExamplePlugin
from volume_driver import VolumeDriverSuite

from wherry.linux.plugins import Directories, Plugins
from wherry.volumes.drivers import VolumeDriver
from wherry.volumes.drivers.local import LocalDriver
from wherry.volumes.drivers.plugin import PluginDriver


def _local(directory: Path) -> LocalDriver:
    return LocalDriver(directory / "volumes")


class TestLocal(VolumeDriverSuite):
    make = staticmethod(_local)


class TestPlugin(VolumeDriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[VolumeDriver]:
        # The path of a socket must be short.
        sockets = Path(f"/tmp/wherry-plugins-{secrets.token_hex(4)}")
        sockets.mkdir()
        plugin = ExamplePlugin(sockets / "example.sock", tmp_path / "data")
        try:
            yield PluginDriver("example", Plugins(Directories(sockets=(sockets,))), tmp_path / "volumes")
        finally:
            plugin.close()
            sockets.rmdir()
