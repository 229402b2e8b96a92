"""The namespace that containers are started in, against the kernel: it has what the host has, less the mounts
of other tasks, and the host has what it had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patience import patiently

from wherry.linux import mountids

pytestmark = pytest.mark.kernel
ROOM = Path(__file__).with_name("launchroom.py")


def _numbers() -> bool:
    try:
        mountids.below(mountids.of_path("/"))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _numbers(), reason="listmount(2) is there from Linux 6.8 on")
@pytest.mark.parametrize(
    "case",
    [
        "own_mounts_only",
        "the_hosts_mounts_are_its_own",
        "it_follows_the_host",
        "it_is_not_made_again_and_again",
        "few_do_without",
        "nothing_stays",
        "a_directory_that_is_no_mount",
    ],
)
def test_in_a_room(tmp_path: Path, case: str) -> None:
    room = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*room, sys.executable, str(ROOM), case, str(tmp_path.resolve())],
        capture_output=True,
        text=True,
        timeout=patiently(30),
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_mounts_by_number() -> None:
    """Where the kernel numbers them, the numbers are those of mountinfo."""
    if not _numbers():
        with pytest.raises(OSError, match=r"listmount|number|argument|implemented"):
            mountids.below(mountids.of_path("/"))
        return
    everything = mountids.below()
    assert len(everything) == len(Path("/proc/self/mountinfo").read_text().splitlines())
    assert mountids.of_path("/proc") in everything
    assert mountids.below(mountids.of_path("/proc")) < everything
    assert len(mountids.described(sorted(everything))) == len(everything)
    with pytest.raises(FileNotFoundError):
        mountids.of_path("/none/at/all")
