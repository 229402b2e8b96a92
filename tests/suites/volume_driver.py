"""What every volume driver must do. Run it with a function that makes a fresh driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from wherry.errors import InvalidArgument
from wherry.volumes.drivers import Driver


class VolumeDriverSuite:
    make: ClassVar[Callable[..., Driver]]

    @pytest.fixture
    def driver(self, tmp_path: object) -> Driver:
        return type(self).make(tmp_path)

    def test_new_volume_is_an_empty_directory(self, driver: Driver) -> None:
        driver.create("data", {})
        assert driver.path("data").is_dir()
        assert list(driver.path("data").iterdir()) == []
        assert driver.usage("data") == 0
        assert driver.names() == {"data"}

    def test_volumes_are_apart(self, driver: Driver) -> None:
        for name in ("one", "two"):
            driver.create(name, {})
        (driver.path("one") / "file").write_text("x")
        assert list(driver.path("two").iterdir()) == []

    def test_usage_counts_each_file_once(self, driver: Driver) -> None:
        driver.create("data", {})
        path = driver.path("data")
        (path / "a").write_bytes(b"x" * 1000)
        (path / "b").hardlink_to(path / "a")
        (path / "deep").mkdir()
        (path / "deep" / "c").write_bytes(b"x" * 500)
        (path / "link").symlink_to("/etc/passwd")
        assert driver.usage("data") == 1500

    def test_removed_data_never_comes_back(self, driver: Driver) -> None:
        driver.create("data", {})
        (driver.path("data") / "secret").write_text("x")
        driver.remove("data")
        assert driver.names() == set()
        driver.create("data", {})
        assert list(driver.path("data").iterdir()) == []

    def test_create_finds_leftovers_and_removes_them(self, driver: Driver) -> None:
        driver.create("data", {})
        (driver.path("data") / "secret").write_text("x")
        driver.create("data", {})
        assert list(driver.path("data").iterdir()) == []

    def test_remove_and_discard_may_be_repeated(self, driver: Driver) -> None:
        driver.remove("never")
        driver.create("data", {})
        for _ in range(2):
            driver.remove("data")
            driver.discard()
        assert driver.names() == set()

    def test_unknown_option_is_refused_by_name(self, driver: Driver) -> None:
        with pytest.raises(InvalidArgument, match="colour"):
            driver.check_options({"colour": "red"})
