"""Volumes on a full disk and across file systems."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from network_lab import on_a_host

from wherry.engine.volumes.files import VolumeFileService
from wherry.errors import Internal, Unavailable, WherryError
from wherry.linux import mounts
from wherry.model.mount import Mount
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.state.volume_snapshots import VolumeSnapshots
from wherry.state.volumes import Volumes
from wherry.storage.confined.containerfiles import Job
from wherry.volumes.fill import copy_up
from wherry.volumes.store import VolumeStore
from wherry.volumes.versions import VolumeVersions

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


@on_a_host
def test_a_full_disk_leaves_no_copy_half_there(tmp_path: Path) -> None:
    """Snapshot, clone and import: a clear error, the source as it was, and nothing left."""
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount(Mount("tmpfs", "tmpfs", ("size=5m",)), small)
    db = Database(tmp_path / "db", MIGRATIONS)
    store = VolumeStore(small / "volumes", Volumes(db))
    versions = VolumeVersions(store, VolumeSnapshots(db))
    volume = store.create("data")
    assert volume.mountpoint is not None
    data = os.urandom(3 << 20)
    (volume.mountpoint / "a").write_bytes(b"small")
    (volume.mountpoint / "b").write_bytes(data)
    free = os.statvfs(small).f_bfree

    with pytest.raises(Unavailable, match="cannot snapshot volume data: no space left on device"):
        versions.create(volume, "s")
    with pytest.raises(Unavailable, match="cannot clone volume data: no space left on device"):
        versions.clone(volume, "copy")
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(volume.mountpoint, arcname=".")
    events = SimpleNamespace(publish=lambda *_details: None)
    files = VolumeFileService(volumes=store, versions=cast(Any, None), events=cast(Any, events))
    with archive.open("rb") as source, pytest.raises(WherryError, match=r"(?i)no space left on device"):
        asyncio.run(files.import_("imported", source, Job(), labels={}, merge=False))

    assert [v.name for v in store.list()] == ["data"] and versions.of(volume) == []
    assert {p.name for p in (small / "volumes").iterdir()} == {"data"}
    assert not list(volume.mountpoint.parent.glob("snapshots/*"))
    assert (volume.mountpoint / "b").read_bytes() == data
    assert free - os.statvfs(small).f_bfree <= 4  # the directory of snapshots
