"""Unmounting without waiting for the file system's end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry.linux import mounts
from wherry.model.mount import Mount

pytestmark = pytest.mark.kernel


def test_the_mount_is_gone_and_its_file_system_is_there_until_it_is_closed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    mounts.mount(Mount("tmpfs", "tmpfs", ()), place)
    (place / "file").write_text("here")
    loose = mounts.let_go(place)
    try:
        assert str(place) not in [entry.target for entry in mounts.read_mounts()]
        assert list(place.iterdir()) == []
        assert os.listdir(f"/proc/self/fd/{loose}") == ["file"]
    finally:
        os.close(loose)


def test_what_is_not_mounted_or_not_there(tmp_path: Path) -> None:
    os.close(mounts.let_go(tmp_path))
    assert mounts.let_go(tmp_path / "none") == -1


def test_a_refused_unmount_keeps_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_target: str, _flags: int) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(mounts.sys, "umount", refused)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError):
        mounts.let_go(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
