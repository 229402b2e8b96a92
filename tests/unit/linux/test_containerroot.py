"""What a child holds of the host's while it has another root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry.linux import containerroot as roots


def test_own_descriptors_are_found_by_number_and_nothing_above_them() -> None:
    held = roots.own_descriptors()
    file = os.open("/", os.O_PATH)
    try:
        assert os.readlink(str(file), dir_fd=held) == "/"
        os.close(os.open(str(file), os.O_RDONLY | os.O_DIRECTORY, dir_fd=held))
        with pytest.raises(FileNotFoundError):
            os.stat("../../sys/kernel", dir_fd=held)
    finally:
        os.close(file)
        os.close(held)


def test_a_directory_apart_has_its_files_and_nothing_above_it(tmp_path: Path) -> None:
    (tmp_path / "d" / "inner").mkdir(parents=True)
    (tmp_path / "beside").touch()
    held = roots.apart(str(tmp_path / "d"))
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=held)
    os.close(held)  # what was opened in it stays within it
    try:
        assert os.listdir(opened) == ["inner"]
        with pytest.raises(FileNotFoundError):
            os.stat("../beside", dir_fd=opened)
        inner = os.open("inner", os.O_RDONLY, dir_fd=opened)
        try:
            assert os.path.samestat(os.stat("../../../", dir_fd=inner), os.stat(tmp_path / "d"))
        finally:
            os.close(inner)
    finally:
        os.close(opened)
