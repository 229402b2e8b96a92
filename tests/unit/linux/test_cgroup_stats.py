"""Readings against trees of files as the kernel writes them, version 1 and version 2."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.linux import cgroup_stats, cgroups
from wherry.linux.cgroup_stats import Sampler, parse_blkio, parse_io_stat, parse_net_dev
from wherry.linux.cgroups import Layout
from wherry.model.stats import Sample
from wherry.wire import stats as wire

ID = "c" * 64
V1 = {
    "cpuacct/w/cpuacct.usage": "5000000000\n",
    "cpuacct/w/cpuacct.usage_percpu": "3000000000 2000000000 \n",
    "cpuacct/w/cpuacct.stat": "user 300\nsystem 200\n",
    "cpu/w/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 123456\nnr_bursts 0\nburst_time 0\n",
    "memory/w/memory.usage_in_bytes": "10485760\n",
    "memory/w/memory.max_usage_in_bytes": "20971520\n",
    "memory/w/memory.failcnt": "7\n",
    "memory/w/memory.stat": "cache 100\nhierarchical_memory_limit 33554432\ntotal_inactive_file 4096\n",
    "pids/w/pids.current": "3\n",
    "pids/w/pids.max": "max\n",
    "blkio/w/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n",
    "blkio/w/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
}
V2 = {
    "w/cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\n"
    "nr_throttled 4\nthrottled_usec 123\n",
    "w/memory.current": "10485760\n",
    "w/memory.max": "33554432\n",
    "w/memory.stat": "anon 100\nfile 200\ninactive_file 4096\n",
    "w/pids.current": "3\n",
    "w/pids.max": "64\n",
    "w/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
}


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree(tmp_path, V1)
    names = ("cpuacct", "cpu", "memory", "pids", "blkio")
    layout = Layout(1, {name: tmp_path / name for name in names}, None)
    monkeypatch.setattr(cgroups, "layout", lambda: layout)
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree(tmp_path, V2)
    monkeypatch.setattr(cgroups, "layout", lambda: Layout(2, {}, tmp_path))
    return tmp_path


@pytest.fixture
def sampler(request: pytest.FixtureRequest) -> Iterator[Sampler]:
    made = Sampler(ID, "/w", os.getpid(), networks=False)
    yield made
    made.close()


def read(sampler: Sampler) -> Sample:
    found = sampler.sample("web", 10**12, 2)
    assert found is not None
    return found


def test_version_1(v1: Path, sampler: Sampler) -> None:
    found = read(sampler)
    assert (found.cpu.total, found.cpu.percpu) == (5 * 10**9, (3 * 10**9, 2 * 10**9))
    assert (found.cpu.user, found.cpu.system) == (3 * 10**9, 2 * 10**9)
    assert found.cpu.throttled == (10, 4, 123456)
    assert (found.memory, found.memory_max, found.memory_failures) == (10485760, 20971520, 7)
    assert found.memory_limit == 33554432
    assert (found.pids, found.pids_limit) == (3, (1 << 64) - 1)
    assert found.io_bytes == ((8, 0, "Read", 4096), (8, 0, "Write", 8192))
    assert found.io_operations == ((8, 0, "Read", 1), (8, 0, "Write", 2))
    assert (found.read_before, found.before.online) == (0, 0)


def test_version_2(v2: Path, sampler: Sampler) -> None:
    found = read(sampler)
    assert (found.cpu.total, found.cpu.user, found.cpu.system) == (5 * 10**9, 3 * 10**9, 2 * 10**9)
    assert (found.cpu.percpu, found.cpu.throttled) == ((), (10, 4, 123000))
    assert (found.memory, found.memory_max, found.memory_limit) == (10485760, None, 33554432)
    assert (found.pids, found.pids_limit) == (3, 64)
    assert found.io_bytes == ((8, 0, "read", 4096), (8, 0, "write", 8192))
    assert found.io_operations is None


def test_no_limit_is_the_machines_memory(v2: Path, sampler: Sampler) -> None:
    (v2 / "w/memory.max").write_text("max\n")
    assert read(sampler).memory_limit == cgroup_stats.host_memory()


def test_the_reading_before_comes_along(v1: Path, sampler: Sampler) -> None:
    first = read(sampler)
    (v1 / "cpuacct/w/cpuacct.usage").write_text("6000000000\n")
    (v1 / "blkio/w/blkio.throttle.io_service_bytes_recursive").write_text("8:0 Read 5000\n")
    second = read(sampler)
    assert (second.before, second.read_before) == (first.cpu, first.read)
    assert second.cpu.total == 6 * 10**9
    assert second.io_bytes == ((8, 0, "Read", 5000),)


def test_a_controller_that_is_not_there(v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(1, {"cpuacct": v1 / "cpuacct"}, None)
    monkeypatch.setattr(cgroups, "layout", lambda: layout)
    sampler = Sampler(ID, "/w", os.getpid(), networks=False)
    try:
        found = read(sampler)
    finally:
        sampler.close()
    assert (found.memory, found.pids, found.memory_limit) == (None, None, None)
    shown = json.loads(wire.encode(found))
    assert (shown["memory_stats"], shown["pids_stats"]) == ({}, {})


def test_a_container_that_is_gone(v1: Path) -> None:
    sampler = Sampler(ID, "/none", os.getpid(), networks=False)
    assert sampler.sample("web", 1, 1) is None
    sampler.close()


def test_without_descriptors_to_spare(v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_stats, "_budget", lambda: 0)
    before = len(os.listdir("/proc/self/fd"))
    sampler = Sampler(ID, "/w", os.getpid(), networks=True)
    assert read(sampler).memory == 10485760
    assert len(os.listdir("/proc/self/fd")) == before
    sampler.close()


def test_descriptors_are_given_back(v1: Path) -> None:
    before, held = len(os.listdir("/proc/self/fd")), cgroup_stats._File.held
    sampler = Sampler(ID, "/w", os.getpid(), networks=True)
    assert len(os.listdir("/proc/self/fd")) == before + 13
    sampler.close()
    sampler.close()
    assert (len(os.listdir("/proc/self/fd")), cgroup_stats._File.held) == (before, held)


def test_lines_of_the_kernels() -> None:
    assert parse_blkio(b"") == parse_io_stat(b"") == parse_net_dev(b"") == ()
    assert parse_blkio(b"Total 5\n") == ()
    assert parse_io_stat(b"8:0 rbytes=1 wbytes=2 cost.usage=3\n7:0\n") == (
        (8, 0, "read", 1),
        (8, 0, "write", 2),
    )
    head = b"Inter-| Receive | Transmit\n face |bytes ...\n"
    lines = (
        b"  eth1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
        b"    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n"
        b" eth0:10 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
    )
    assert parse_net_dev(head + lines) == (
        ("eth0", (10, 2, 3, 4, 5, 6, 7, 8)),
        ("eth1", (1, 2, 3, 4, 5, 6, 7, 8)),
    )


# ---- the wire --------------------------------------------------------------------------------------------


def test_what_clients_see(v1: Path, sampler: Sampler) -> None:
    read(sampler)
    shown = json.loads(wire.encode(read(sampler)))
    assert (shown["name"], shown["id"], shown["os_type"], shown["num_procs"]) == ("/web", ID, "linux", 0)
    assert shown["cpu_stats"] == {
        "cpu_usage": {
            "total_usage": 5 * 10**9,
            "percpu_usage": [3 * 10**9, 2 * 10**9],
            "usage_in_kernelmode": 2 * 10**9,
            "usage_in_usermode": 3 * 10**9,
        },
        "system_cpu_usage": 10**12,
        "online_cpus": 2,
        "throttling_data": {"periods": 10, "throttled_periods": 4, "throttled_time": 123456},
    }
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 5 * 10**9
    assert shown["memory_stats"]["stats"]["total_inactive_file"] == 4096
    assert (shown["memory_stats"]["usage"], shown["memory_stats"]["limit"]) == (10485760, 33554432)
    assert shown["blkio_stats"]["io_service_bytes_recursive"][0] == {
        "major": 8,
        "minor": 0,
        "op": "Read",
        "value": 4096,
    }
    assert "networks" not in shown


def test_the_first_reading_has_nothing_before_it(v2: Path, sampler: Sampler) -> None:
    shown = json.loads(wire.encode(read(sampler)))
    assert shown["preread"] == "0001-01-01T00:00:00Z"
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "system_cpu_usage" not in shown["precpu_stats"]
    assert "percpu_usage" not in shown["cpu_stats"]["cpu_usage"]


def test_interfaces_and_odd_names() -> None:
    sample = Sample(ID, 'a"b', 1, cgroup_stats.Cpu(online=1), networks=(('x"y', tuple(range(8))),))
    shown = json.loads(wire.encode(sample))
    assert shown["name"] == '/a"b'
    assert shown["networks"]['x"y']["rx_bytes"] == 0
    assert shown["networks"]['x"y']["tx_dropped"] == 7
    stopped = json.loads(wire.encode_stopped(ID, "web"))
    assert (stopped["read"], stopped["memory_stats"], stopped["id"]) == ("0001-01-01T00:00:00Z", {}, ID)
