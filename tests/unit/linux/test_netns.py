from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.linux import netns
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "netns"
    netns.prepare_directory(directory)
    yield directory
    netns.remove_directory(directory)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_made_entered_and_let_go(pins: Path) -> None:
    before = here()
    made = netns.create(pins / "a", here)
    assert made != before == here()
    assert netns.is_pinned(pins / "a")
    assert (pins / "a").stat().st_ino == made == netns.inside(pins / "a", here)
    netns.unpin(pins / "a")
    netns.unpin(pins / "a")
    assert list(pins.iterdir()) == []
    assert not netns.is_pinned(pins / "a")


def test_failure_leaves_nothing(pins: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        netns.create(pins / "a", fail)
    assert list(pins.iterdir()) == []
    netns.create(pins / "b", lambda: None)
    with pytest.raises(FileExistsError):
        netns.create(pins / "b", lambda: None)
    assert netns.is_pinned(pins / "b"), "the one that was there stays"


def test_a_socket_stays_where_it_was_made(pins: Path) -> None:
    with netns.create(pins / "a", NetlinkSocket) as inside:
        assert [link.name for link in rt.links(inside) if link.kind == ""] == ["lo"]
        assert not rt.links(inside)[0].up


def test_not_a_namespace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        netns.inside(tmp_path / "file", here)
    assert not netns.is_pinned(tmp_path / "file")


def test_preparing_twice_is_one_mount(pins: Path) -> None:
    netns.prepare_directory(pins)
    mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(pins) in line]
    assert len(mounted) == 1
