"""What containers use, as the docker CLI, the SDK and the kernel's own files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from daemonlab import TIMEOUT, LabDaemon, UnixConnection, wait_until
from patience import patiently

from wherry.cli.render.usage import ContainerUsage
from wherry.client import containers
from wherry.client.api import Api
from wherry.client.endpoint import DaemonEndpoint

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    flags = ("-m", "64m", "--pids-limit", "50")
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000").ok()
    return name


def one_shot(daemon: LabDaemon, container: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", f"/containers/{container}/stats?stream=0&one-shot=1").json
    return found


def open_files(daemon: LabDaemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_readings_are_the_kernels(daemon: LabDaemon, box: str) -> None:
    daemon.docker("exec", "-d", box, "sh", "-c", "while :; do :; done").ok()
    found = one_shot(daemon, box)
    identifier = daemon.api("GET", f"/containers/{box}/json").json["Id"]
    assert (found["id"], found["name"], found["os_type"]) == (identifier, f"/{box}", "linux")
    assert found["memory_stats"]["limit"] == 64 << 20
    assert found["pids_stats"] == {"current": 2, "limit": 50}
    assert found["cpu_stats"]["online_cpus"] == len(os.sched_getaffinity(0))
    assert "eth0" in found["networks"]
    assert found["preread"].startswith("0001")
    usage = Path(f"/sys/fs/cgroup/cpuacct/{daemon.cgroup}/{identifier}/cpuacct.usage")
    if usage.exists():
        after = int(usage.read_text())
        assert found["cpu_stats"]["cpu_usage"]["total_usage"] <= after
        assert one_shot(daemon, box)["cpu_stats"]["cpu_usage"]["total_usage"] >= after
    with_rates = daemon.api("GET", f"/containers/{box}/stats?stream=0").json
    spent = (
        with_rates["cpu_stats"]["cpu_usage"]["total_usage"]
        - with_rates["precpu_stats"]["cpu_usage"]["total_usage"]
    )
    assert 10**8 < spent < 2 * 10**9
    host = with_rates["cpu_stats"]["system_cpu_usage"] - with_rates["precpu_stats"]["system_cpu_usage"]
    assert 10**8 < host < 10 * 10**9


def test_the_docker_cli_and_the_sdk(daemon: LabDaemon, box: str) -> None:
    shown = json.loads(daemon.docker("stats", "--no-stream", "--format", "json", box).ok())
    assert (shown["Name"], shown["PIDs"]) == (box, "1")
    assert shown["MemUsage"].endswith("/ 64MiB")
    with daemon.sdk() as client:
        container = client.containers.get(box)
        assert container.stats(stream=False)["pids_stats"]["current"] == 1
        stream = container.stats(decode=True)
        first, second = next(stream), next(stream)
        assert second["preread"] == first["read"]
        stream.close()


def test_a_container_that_does_not_run(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "true").ok()
    found = one_shot(daemon, name)
    assert (found["name"], found["memory_stats"], found["pids_stats"]) == (f"/{name}", {}, {})
    assert daemon.api("GET", f"/containers/{name}/stats?stream=0").json == found
    assert name in daemon.docker("stats", "-a", "--no-stream").ok()
    assert daemon.api("GET", "/containers/none-such/stats").status == 404
    refused = daemon.api("GET", f"/containers/{name}/stats?one-shot=1")
    assert (refused.status, refused.message) == (400, "cannot have stream=true and one-shot=true")


class Stream:
    """Lines of a streamed answer."""

    def __init__(self, daemon: LabDaemon, path: str) -> None:
        self._connection = UnixConnection(daemon.socket)
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()

    def line(self) -> Any:
        text = self._response.readline()
        return json.loads(text) if text else None

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def test_a_stream_follows_the_container_to_its_removal(daemon: LabDaemon, box: str) -> None:
    before = open_files(daemon)
    stream = Stream(daemon, f"/containers/{box}/stats")
    assert stream.line()["pids_stats"]["current"] == 1
    assert open_files(daemon) > before + 5
    daemon.docker("kill", box).ok()
    while stream.line()["pids_stats"]:
        pass
    daemon.docker("start", box).ok()
    while not stream.line()["pids_stats"]:
        pass
    daemon.docker("rm", "-f", box).ok()
    while (last := stream.line()) is not None:
        assert last["name"] == f"/{box}"
    stream.close()
    wait_until(lambda: open_files(daemon) <= before)


def test_all_at_once(daemon: LabDaemon, box: str) -> None:
    before = open_files(daemon)
    other = f"{box}-o"
    daemon.docker("create", "--name", other, "busybox", "true").ok()
    stream = Stream(daemon, "/containers/stats")
    assert [found["name"] for found in stream.line()] == [f"/{box}"]
    (found,) = stream.line()
    assert found["precpu_stats"]["system_cpu_usage"] > 0
    stream.close()
    (answer,) = daemon.api("GET", "/containers/stats?stream=0&all=1").lines
    assert {found["name"] for found in answer} == {f"/{box}", f"/{other}"}
    wait_until(lambda: open_files(daemon) <= before)
    code = "from wherry.cli.main import entry; raise SystemExit(entry())"
    argv = [sys.executable, "-c", code, "-H", f"unix://{daemon.socket}", "top"]
    shown = subprocess.run(
        argv, capture_output=True, text=True, timeout=patiently(TIMEOUT), check=True
    ).stdout
    assert box in shown and other not in shown


def test_a_daemon_without_the_endpoint_for_all_is_asked_for_each(daemon: LabDaemon, name: str) -> None:
    """As Docker's: what the client makes of single readings is what the daemon says of all."""
    busy = "while :; do :; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", busy).ok()
    daemon.docker("run", "-d", "--name", f"{name}-2", "busybox", "sleep", "100").ok()
    with Api(DaemonEndpoint(f"unix://{daemon.socket}")) as api:
        (found,) = containers.one_by_one(api, stream=False)
        usages = {usage.name: usage for usage in map(ContainerUsage, found)}
        assert sorted(usages) == [name, f"{name}-2"]
        assert usages[name].cpu > 10
        assert usages[f"{name}-2"].cpu < 10
        (together,) = containers.all_stats(api, stream=False)
        assert {u["id"] for u in together} == {u["id"] for u in found}
    daemon.docker("rm", "-f", name, f"{name}-2").ok()
    with Api(DaemonEndpoint(f"unix://{daemon.socket}")) as api:
        assert list(containers.one_by_one(api, stream=False)) == [[]]
