"""What a kernel lacks: sets of CPUs, limits without a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.errors import InvalidArgument
from wherry.linux import cgroups
from wherry.model.container import HostConfig, ThrottleDevice
from wherry.runtime import support


@pytest.mark.parametrize(
    ("text", "expected"), [("0", {0}), ("0-2", {0, 1, 2}), ("0,2-3", {0, 2, 3}), ("5-5", {5})]
)
def test_sets(text: str, expected: set[int]) -> None:
    assert support.parse_set(text) == expected


@pytest.mark.parametrize("text", ["", "a", "2-1", "-1", "1-", "0,,1", "0-999999", "\u0661"])
def test_no_sets(text: str) -> None:
    with pytest.raises(ValueError):
        support.parse_set(text)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 1 layout whose child cgroups have the files a test makes in ``template``."""
    hierarchies = {name: tmp_path / name for name in ("blkio", "pids", "memory", "cpu")}
    for directory in hierarchies.values():
        (directory / "p").mkdir(parents=True)
    monkeypatch.setattr(cgroups, "layout", lambda: cgroups.Layout(1, hierarchies, None))
    return tmp_path


def test_what_has_no_file_is_left_out_with_a_warning(tree: Path) -> None:
    rate = [ThrottleDevice(path="/dev/x", rate=1)]
    asked = HostConfig(blkio_weight=300, blkio_device_read_bps=rate, pids_limit=5, memory=1 << 27)
    host, warnings = support.discard(asked, "/p")
    assert (host.blkio_weight, host.blkio_device_read_bps, host.pids_limit) == (0, None, None)
    assert (host.memory, host.memory_swap) == (1 << 27, -1)
    assert len(warnings) == 4
    assert warnings[0] == (
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    )


def test_what_has_its_file_stays(tree: Path) -> None:
    for name in ("blkio/p/blkio.weight", "pids/p/pids.max", "memory/p/memory.memsw.limit_in_bytes"):
        (tree / name).touch()
    asked = HostConfig(blkio_weight=300, pids_limit=5, memory=1 << 27, memory_swap=1 << 28)
    assert support.discard(asked, "/p") == (asked, [])


def test_real_time_needs_a_share_to_divide(tree: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not support CPU real-time scheduler"):
        support.check(HostConfig(cpu_realtime_runtime=1000), "/p")
    (tree / "cpu/p/cpu.rt_runtime_us").write_text("500")
    with pytest.raises(InvalidArgument, match="/p has 500"):
        support.check(HostConfig(cpu_realtime_runtime=1000), "/p")
    support.check(HostConfig(cpu_realtime_runtime=500, cpu_realtime_period=1000), "/p")
    with pytest.raises(InvalidArgument, match="higher than"):
        support.check(HostConfig(cpu_realtime_runtime=500, cpu_realtime_period=100), "/p")


def test_cpus_that_are_not_there() -> None:
    with pytest.raises(InvalidArgument, match="Requested CPUs are not available - requested 4000"):
        support.check(HostConfig(cpuset_cpus="4000"), "/p")
    with pytest.raises(InvalidArgument, match="Invalid value x for cpuset mems"):
        support.check(HostConfig(cpuset_mems="x"), "/p")
    support.check(HostConfig(cpuset_cpus="0"), "/p")
