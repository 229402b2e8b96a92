from __future__ import annotations

from pathlib import Path

import pytest

from wherry.linux import rootmounts
from wherry.linux.mounts import MountEntry

HERE = Path("/var/lib/wherry/snapshots")


def overlay(upper: str) -> MountEntry:
    return MountEntry("/", "/", "overlay", "overlay", f"rw,relatime,lowerdir=/l,{upper}workdir=/w,uuid=on")


def bound(root: str) -> MountEntry:
    return MountEntry("/", root, "ext4", "/dev/vda", "rw,relatime")


@pytest.mark.parametrize(
    ("mounts", "want"),
    [
        ([overlay("upperdir=/var/lib/wherry/snapshots/overlay/x/fs,")], False),
        ([overlay("upperdir=/var/lib/wherry/snapshots-2/overlay/x/fs,")], True),
        ([overlay("upperdir=/srv/copy/snapshots/overlay/x/fs,")], True),
        ([overlay(r"upperdir=/srv/a\,b/snapshots/overlay/x/fs,")], True),
        ([overlay("")], False),
        ([overlay("upperdir=snapshots/overlay/x/fs,")], False),
        ([bound("/srv/copy/snapshots/vfs/x/fs")], True),
        ([bound("/")], False),
        ([bound("/home/fs")], False),
        ([overlay("upperdir=/srv/copy/snapshots/overlay/x/fs,"), bound("/")], False),
        ([], False),
    ],
    ids=[
        "ours", "a name that begins alike", "a copy", "a comma", "no upper", "relative", "a bound copy",
        "the host's", "somebody's", "the uppermost counts", "none",
    ],
)  # fmt: skip
def test_whose_root_it_is(monkeypatch: pytest.MonkeyPatch, mounts: list[MountEntry], want: bool) -> None:
    monkeypatch.setattr(rootmounts, "read_mounts", lambda _pid: iter(mounts))
    assert rootmounts.is_below_another(1, HERE) is want


def test_a_process_that_is_gone() -> None:
    assert not rootmounts.is_below_another(2**22 + 1, HERE)


def test_a_bound_root_of_ours_is_told_by_its_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vfs/x/fs").mkdir(parents=True)
    found = [bound(f"/elsewhere{tmp_path}/snapshots/vfs/x/fs")]
    monkeypatch.setattr(rootmounts, "read_mounts", lambda _pid: iter(found))
    real = rootmounts.os.stat
    monkeypatch.setattr(
        rootmounts.os, "stat", lambda path: real(tmp_path / "vfs/x/fs" if "/proc/" in str(path) else path)
    )
    assert not rootmounts.is_below_another(1, tmp_path)
