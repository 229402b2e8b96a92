"""What every volume driver must do. Run it with a function that makes a fresh driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from wherry.errors import InvalidArgument
from wherry.volumes.drivers import VolumeDriver


def mount(driver: VolumeDriver, volume_id: str) -> Path:
    return driver.mount(volume_id, {})


class VolumeDriverSuite:
    make: ClassVar[Callable[..., VolumeDriver]]

    @pytest.fixture
    def driver(self, tmp_path: object) -> VolumeDriver:
        return type(self).make(tmp_path)

    def test_new_volume_is_an_empty_directory(self, driver: VolumeDriver) -> None:
        driver.create("data", {})
        assert mount(driver, "data").is_dir()
        assert list(mount(driver, "data").iterdir()) == []
        assert driver.usage("data", {}) == (-1 if driver.remote else 0)
        assert driver.ids() == {"data"}

    def test_volumes_are_apart(self, driver: VolumeDriver) -> None:
        for name in ("one", "two"):
            driver.create(name, {})
        (mount(driver, "one") / "file").write_text("x")
        assert list(mount(driver, "two").iterdir()) == []

    def test_usage_counts_each_file_once(self, driver: VolumeDriver) -> None:
        driver.create("data", {})
        path = mount(driver, "data")
        (path / "a").write_bytes(b"x" * 1000)
        (path / "b").hardlink_to(path / "a")
        (path / "deep").mkdir()
        (path / "deep" / "c").write_bytes(b"x" * 500)
        (path / "link").symlink_to("/etc/passwd")
        assert driver.usage("data", {}) == (-1 if driver.remote else 1500)

    def test_removed_data_never_comes_back(self, driver: VolumeDriver) -> None:
        driver.create("data", {})
        (mount(driver, "data") / "secret").write_text("x")
        driver.remove("data")
        assert driver.ids() == set()
        driver.create("data", {})
        assert list(mount(driver, "data").iterdir()) == []

    def test_create_finds_leftovers_and_removes_what_is_ours(self, driver: VolumeDriver) -> None:
        driver.create("data", {})
        (mount(driver, "data") / "secret").write_text("x")
        driver.create("data", {})
        left = [path.name for path in mount(driver, "data").iterdir()]
        assert left == (["secret"] if driver.remote else [])

    def test_remove_and_discard_may_be_repeated(self, driver: VolumeDriver) -> None:
        driver.remove("never")
        driver.create("data", {})
        for _ in range(2):
            driver.remove("data")
            driver.discard()
        assert driver.ids() == set()

    def test_unknown_option_is_refused_by_name(self, driver: VolumeDriver) -> None:
        if driver.remote:
            driver.check_options({"colour": "red"})  # the plugin's business
            return
        with pytest.raises(InvalidArgument, match="colour"):
            driver.check_options({"colour": "red"})

    def test_mount_and_unmount_may_be_repeated(self, driver: VolumeDriver) -> None:
        driver.create("data", {})
        for _ in range(2):
            (driver.mount("data", {}) / "file").write_text("x")
        for _ in range(2):
            driver.unmount("data", {})
        assert driver.mounted() == set()
        assert (driver.mount("data", {}) / "file").read_text() == "x"
        driver.unmount("data", {})
