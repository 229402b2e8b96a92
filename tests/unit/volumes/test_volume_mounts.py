"""Who has a volume mounted: the first mounts, the last unmounts, whatever happens at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from patience import patiently

from wherry.errors import Internal, InvalidArgument, Unavailable
from wherry.volumes.drivers import local_options
from wherry.volumes.mounted import Mounts, user_of


class Kernel:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = False
        self.mounted: set[str] = set()

    def mount(self, volume_id: str) -> Path:
        if self.broken:
            raise Internal("no")
        assert volume_id not in self.mounted
        self.mounted.add(volume_id)
        self.calls.append(f"mount {volume_id}")
        return Path(f"/mnt/{volume_id}")

    def unmount(self, volume_id: str) -> None:
        self.mounted.remove(volume_id)
        self.calls.append(f"unmount {volume_id}")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def mounts(kernel: Kernel) -> Mounts:
    return Mounts(kernel.mount, kernel.unmount)


def test_the_first_mounts_and_the_last_unmounts(kernel: Kernel, mounts: Mounts) -> None:
    for user in ("a", "b", "a"):
        assert mounts.take("v", user) == Path("/mnt/v")
    mounts.give_back("v", "a")
    mounts.give_back("v", "a")
    mounts.give_back("v", "stranger")
    assert (kernel.calls, mounts.ids()) == (["mount v"], {"v"})
    mounts.give_back("v", "b")
    assert (kernel.calls, mounts.ids()) == (["mount v", "unmount v"], set())


def test_one_container_has_a_volume_in_two_places(kernel: Kernel, mounts: Mounts) -> None:
    for place in ("/x", "/y"):
        mounts.take("v", user_of("c1", place))
    mounts.take("v", user_of("c12", "/x"))
    mounts.give_back("v", user_of("c1", "/x"))
    mounts.give_all_back("c12")
    assert kernel.mounted == {"v"}
    mounts.give_all_back("c1")
    assert kernel.mounted == set()


def test_a_mount_that_fails_counts_for_nobody(kernel: Kernel, mounts: Mounts) -> None:
    kernel.broken = True
    with pytest.raises(Internal):
        mounts.take("v", "a")
    assert mounts.ids() == set()
    kernel.broken = False
    mounts.take("v", "a")
    mounts.give_back("v", "a")
    assert kernel.calls == ["mount v", "unmount v"]


def test_adopted_tasks_count(kernel: Kernel, mounts: Mounts) -> None:
    kernel.mounted.add("v")
    mounts.adopt("v", "a")
    assert mounts.ids() == {"v"}
    mounts.give_back("v", "a")
    assert kernel.calls == ["unmount v"]


def test_many_at_once(kernel: Kernel, mounts: Mounts) -> None:
    """The fake fails when something is mounted twice, or unmounted while it is not mounted."""
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for n in range(200):
            volume = f"v{n % 3}"
            mounts.take(volume, f"user{number}")
            assert volume in kernel.mounted
            mounts.give_back(volume, f"user{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert (kernel.mounted, mounts.ids()) == (set(), set())


def test_a_volume_that_hangs_holds_up_no_other(kernel: Kernel) -> None:
    release, entered = threading.Event(), threading.Event()

    def mount(volume_id: str) -> Path:
        if volume_id == "dead":
            entered.set()
            assert release.wait(patiently(20))
        return Path("/mnt") / volume_id

    mounts = Mounts(mount, lambda _: None)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(mounts.take, "dead", "a")
        assert entered.wait(patiently(20))
        assert mounts.take("alive", "b") == Path("/mnt/alive")
        mounts.give_all_back("b")
        release.set()
        assert hung.result(20) == Path("/mnt/dead")


# ---- options of the local driver -----------------------------------------------------------------------


def test_what_options_mount() -> None:
    assert local_options.mount_of({}) is None
    tmpfs = local_options.mount_of({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"})
    assert tmpfs is not None
    assert (tmpfs.type, tmpfs.source, tmpfs.options) == ("tmpfs", "tmpfs", ("size=1m", "uid=5"))
    bind = local_options.mount_of({"type": "none", "device": "/srv", "o": "bind,ro"})
    assert bind is not None and (bind.type, bind.options) == ("bind", ("bind", "ro"))
    nfs = local_options.mount_of({"type": "nfs", "device": ":/x", "o": "addr=localhost,nfsvers=4"})
    assert nfs is not None and nfs.options in (("addr=127.0.0.1", "nfsvers=4"), ("addr=::1", "nfsvers=4"))
    cifs = local_options.mount_of({"type": "cifs", "device": "//127.0.0.1/s", "o": "username=u"})
    assert cifs is not None and cifs.options == ("username=u", "addr=127.0.0.1")
    with pytest.raises(InvalidArgument, match="error resolving passed in network volume address"):
        local_options.mount_of({"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"type": "nfs"}, 'missing required option: "device"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"type": "none", "o": "bind", "device": "relative"}, "not an absolute path"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1\nro"}, "control character"),
    ],
)
def test_options_that_cannot_be(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        local_options.check(options)
    with pytest.raises(Unavailable, match="quota"):
        local_options.check({"size": "5g"})
