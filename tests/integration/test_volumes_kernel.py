"""Volumes on a full disk and across file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from network_lab import on_a_host

from wherry.errors import Internal
from wherry.linux import mounts
from wherry.model.mount import Mount
from wherry.volumes.fill import copy_up

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@on_a_host
def test_full_disk_leaves_the_volume_empty(tmp_path: Path) -> None:
    image, small = tmp_path / "image", tmp_path / "small"
    (image / "data").mkdir(parents=True)
    (image / "data" / "fits").write_bytes(b"x" * 1000)
    (image / "data" / "zzz").write_bytes(b"x" * (4 << 20))
    small.mkdir()
    mounts.mount(Mount("tmpfs", "tmpfs", ("size=1m",)), small)
    volume = small / "name" / "_data"
    volume.mkdir(parents=True)
    with pytest.raises(Internal, match="cannot fill a volume from /data: No space left on device"):
        copy_up(image, "/data", volume)
    assert list(volume.iterdir()) == []
    (image / "data" / "zzz").write_bytes(b"now it fits")
    copy_up(image, "/data", volume)
    assert sorted(p.name for p in volume.iterdir()) == ["fits", "zzz"]


@on_a_host
def test_from_a_mounted_overlay(tmp_path: Path) -> None:
    for name in ("lower/data", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower" / "data" / "a").write_bytes(b"lower" * 10000)
    options = tuple(
        f"{k}={tmp_path}/{v}" for k, v in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    )
    mounts.mount(Mount("overlay", "overlay", options), tmp_path / "merged")
    (tmp_path / "merged" / "data" / "b").write_bytes(b"upper")
    volume = tmp_path / "volume" / "_data"
    volume.mkdir(parents=True)
    copy_up(tmp_path / "merged", "/data", volume)
    assert (volume / "a").read_bytes() == b"lower" * 10000
    assert (volume / "b").read_bytes() == b"upper"
    assert not any(name.startswith("trusted.overlay") for name in os.listxattr(volume))
