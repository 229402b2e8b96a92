"""What dockerd 28.5 did in the same situation, where wherry once did something else."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel


def test_an_empty_value_is_a_value(daemon: LabDaemon, name: str) -> None:
    """``--filter label=$UNSET`` finds nothing rather than everything."""
    daemon.docker("create", "--name", name, "--label", "a=b", "busybox").ok()
    daemon.docker("volume", "create", name).ok()

    def found(path: str, key: str) -> int:
        answer = daemon.api("GET", f"{path}?all=1&filters={quote(json.dumps({key: ['']}))}").json
        return len(answer["Volumes"] if path == "/volumes" else answer)

    for key, count in (("name", 1), ("id", 0), ("label", 0), ("volume", 0), ("ancestor", 0)):
        assert found("/containers/json", key) == count, key
    for path, key in (
        *(("/images/json", key) for key in ("label", "reference")),
        *(("/networks", key) for key in ("driver", "label")),
        *(("/volumes", key) for key in ("driver", "label")),
    ):
        assert found(path, key) == 0, (path, key)
    assert found("/networks", "name") > 2 and found("/volumes", "name") == 1
    for key in ("status", "exited", "health", "since", "publish"):
        answer = daemon.api("GET", f"/containers/json?filters={quote(json.dumps({key: ['']}))}")
        assert answer.status in (400, 404), key


@pytest.mark.parametrize("version", ["1.43", "1.50", "1.51"])
def test_containers_of_images_are_counted_for_every_client(
    daemon: LabDaemon, name: str, version: str
) -> None:
    """docker's client sums them up: ``system df`` said that no image was in use."""
    daemon.docker("create", "--name", name, "busybox").ok()
    images = daemon.api("GET", f"/v{version}/system/df").json["Images"]
    assert sum(image["Containers"] for image in images) == 1


def test_namespaces_of_the_host(daemon: LabDaemon) -> None:
    """Not every host has /dev/mqueue; an init is for a pid namespace of the container's own."""
    assert daemon.docker("run", "--rm", "--ipc", "host", "busybox", "ls", "/dev/shm").code == 0
    script = "grep -c docker-init /proc/self/mounts"
    own = daemon.docker("run", "--rm", "--init", "busybox", "sh", "-c", script)
    hosts = daemon.docker("run", "--rm", "--init", "--pid", "host", "busybox", "sh", "-c", script)
    assert (own.out.strip(), hosts.out.strip(), hosts.errors) == ("1", "0", "")


def test_cpus_after_a_quota_was_taken_away(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    daemon.docker("update", "--cpu-quota=-1", name).ok()
    daemon.docker("update", "--cpus", "1", name).ok()
    refused = daemon.docker("update", "--cpu-quota", "5000", name).errors
    assert "CPU Quota cannot be updated as NanoCPUs has already been set" in refused


def test_mounts_that_would_not_propagate_as_asked(daemon: LabDaemon) -> None:
    """/proc/self/mountinfo says that the host's /proc takes part in no propagation."""
    with Path("/proc/self/mountinfo").open() as lines:
        proc = next(line.split(" - ")[0].split() for line in lines if line.split()[4] == "/proc")
    if any(field.startswith("shared:") for field in proc[6:]):
        pytest.skip("this host's /proc is a shared mount")
    for mode, kind in (("shared", "shared"), ("rshared", "shared"), ("rslave", "shared or slave")):
        done = daemon.docker("run", "--rm", "-v", f"/proc:/x:{mode}", "busybox", "true")
        assert f"path /proc is mounted on /proc but it is not a {kind} mount" in done.errors


def test_kinds_of_answers(daemon: LabDaemon, name: str) -> None:
    """As the API's definition has them."""
    daemon.docker("create", "--name", name, "busybox").ok()
    for path, kind in (
        ("/_ping", "text/plain; charset=utf-8"),
        (f"/containers/{name}/export", "application/octet-stream"),
        (f"/containers/{name}/archive?path=/etc/passwd", "application/x-tar"),
    ):
        assert daemon.api("GET", path).headers["Content-Type"] == kind, path
