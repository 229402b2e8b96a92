"""What dockerd 28.5 did in the same situation, where wherry once did something else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from buildkitlab import BuildClient
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


def test_an_empty_command(daemon: LabDaemon, name: str) -> None:
    words = 'exec: "": executable file not found in $PATH'
    assert daemon.docker("run", "--rm", "busybox", "").code == 127
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "60").ok()
    done = daemon.docker("exec", name, "")
    assert (done.code, words in done.out + done.errors) == (127, True), done


def test_a_start_that_fails_is_no_error_of_the_wait(daemon: LabDaemon, name: str) -> None:
    """docker's client prints such an error beside the one of the start."""
    made = daemon.docker("create", "--name", name, "busybox", "nonsense").ok()
    connection = daemon.connection()
    connection.request("POST", f"/containers/{made}/wait?condition=next-exit")
    answer = connection.getresponse()
    assert daemon.docker("start", name).code == 1
    assert json.loads(answer.read()) == {"StatusCode": 127}
    connection.close()


def test_words(daemon: LabDaemon, name: str) -> None:
    daemon.docker("network", "create", name).ok()
    daemon.docker("run", "-d", "--name", name, "--network", name, "busybox", "sleep", "60").ok()
    box = daemon.docker("inspect", "-f", "{{.Id}}", name).ok()
    daemon.docker("update", "--cpu-period", "100000", name).ok()
    for path, status, words in (
        (f"/containers/{name}/kill?signal=99", 400, "the linux daemon does not support signal 99"),
        (f"/containers/{name}/kill?signal=0", 400, "invalid signal: 0"),
        (f"/containers/{name}/stop?signal=FOO", 400, f"cannot stop container: {name}: invalid signal: FOO"),
    ):
        answer = daemon.api("POST", path)
        assert (answer.status, words in answer.message) == (status, True), (path, answer.message)
    refused = daemon.docker("update", "--cpus", "1", name).errors
    assert "Nano CPUs cannot be updated as CPU Period has already been set" in refused
    linked = daemon.docker("run", "--rm", "--link", f"{name}:x", "busybox", "true").errors
    assert f"container {box} not attached to default bridge network" in linked
    limit = daemon.api("GET", "/images/search?term=a&limit=x")
    assert limit.message.startswith("invalid limit specified: strconv.Atoi")


def test_ports_are_shown_while_they_can_be_published(daemon: LabDaemon, name: str) -> None:
    def shown() -> tuple[object, str]:
        inspected = daemon.docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", name).ok()
        listed = daemon.docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Ports}}").ok()
        return json.loads(inspected), listed

    for network, running in (
        ("bridge", ({"90/tcp": None}, "90/tcp")),
        ("none", ({}, "")),
        ("host", ({}, "")),
    ):
        daemon.docker("create", "--name", name, "--network", network, "--expose", "90", "busybox", "top").ok()
        assert shown() == ({}, ""), network
        daemon.docker("start", name).ok()
        assert shown() == running, network
        daemon.docker("stop", "-t", "0", name).ok()
        assert shown() == ({}, ""), network
        daemon.docker("rm", name).ok()


@pytest.mark.parametrize(
    ("ipam", "shown"),
    [({}, None), ({"IPAM": {}}, None), ({"IPAM": {"Options": None}}, None), ({"IPAM": {"Options": {}}}, {})],
)
def test_options_of_address_management(
    daemon: LabDaemon, name: str, ipam: dict[str, object], shown: object
) -> None:
    daemon.api("POST", "/networks/create", {"Name": name, **ipam})
    assert daemon.api("GET", f"/networks/{name}").json["IPAM"]["Options"] == shown
    daemon.docker("network", "rm", name).ok()


def test_members_as_given(daemon: LabDaemon, name: str) -> None:
    body = {
        "Image": "busybox",
        "Entrypoint": [],
        "HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096}}]},
    }
    daemon.api("POST", f"/containers/create?name={name}", body)
    made = daemon.api("GET", f"/containers/{name}/json").json
    assert (made["Config"]["Entrypoint"], made["Config"]["Cmd"]) == ([], ["sh"])
    assert [(m["Type"], m["Mode"]) for m in made["Mounts"]] == [("tmpfs", "")]


def test_what_is_empty_or_not_told(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-v", f"{name}:/a", "busybox").ok()
    daemon.docker("create", "--name", f"{name}2", "--volumes-from", f"{name}:ro", "busybox").ok()
    (mount,) = daemon.api("GET", f"/containers/{name}2/json").json["Mounts"]
    assert (mount["Mode"], mount["RW"], mount["Name"]) == ("", False, name)
    images = daemon.api("GET", "/images/json?manifests=1").json
    busybox = next(one for one in images if "busybox:latest" in (one["RepoTags"] or ()))
    assert (busybox["Labels"], busybox["Manifests"][0]["ImageData"]["Containers"]) == (None, None)
    assert daemon.api("POST", "/volumes/prune").json["VolumesDeleted"] == []


def test_changes_that_commit_does_not_know(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    for change, words in (
        ('SHELL ["a"]', "SHELL is not a valid change command"),
        ("", "file with no instructions"),
    ):
        refused = daemon.docker("commit", "--change", change, name)
        assert (refused.code, words in refused.errors) == (1, True), refused.errors


def test_a_quiet_build_that_fails_says_what_it_did(daemon: LabDaemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo done; exit 42\n")
    done = daemon.docker("build", "-q", str(tmp_path), environment={"DOCKER_BUILDKIT": "0"})
    assert (done.code, done.out) == (42, ""), done
    assert "Step 2/2 : RUN echo done; exit 42" in done.errors
    assert "\ndone\n" in done.errors and "returned a non-zero code: 42" in done.errors


def test_heads(daemon: LabDaemon, name: str) -> None:
    redirected = daemon.api("GET", "//v1.50//info?a=//")
    assert (redirected.status, redirected.headers["Location"]) == (301, "/v1.50/info?a=//")
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "60").ok()
    connection = daemon.connection()
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    connection.request("POST", f"/containers/{name}/attach?stream=1&stdout=1", headers=upgrade)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Ostype"], answer.headers["Api-Version"]) == (101, "linux", "1.56")
    connection.close()


def test_events_of_a_commit(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    made = daemon.docker("commit", name, f"{name}:x").ok()
    events = daemon.api("GET", "/events", since=1, until=f"{time.time():.6f}").lines
    ours = [
        e["Action"] for e in events if made in json.dumps(e) and e["Action"] in ("create", "tag", "commit")
    ]
    assert ours == ["create", "tag", "commit"]
    daemon.docker("rmi", f"{name}:x").ok()


@pytest.mark.parametrize("line", ["FROM busybox", "FROM busybox AS one", "FROM busybox:latest"])
def test_titles_of_steps(daemon: LabDaemon, tmp_path: Path, line: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"{line}\nRUN true\n")
    done = BuildClient(daemon, "new").build(tmp_path)
    image = daemon.api("GET", "/images/busybox/json").json["Id"]
    assert f"1/2] FROM docker.io/library/busybox:latest@{image}\n" in done.errors, done.errors


def test_kinds_of_answers(daemon: LabDaemon, name: str) -> None:
    """As the API's definition has them."""
    daemon.docker("create", "--name", name, "busybox").ok()
    for path, kind in (
        ("/_ping", "text/plain; charset=utf-8"),
        (f"/containers/{name}/export", "application/octet-stream"),
        (f"/containers/{name}/archive?path=/etc/passwd", "application/x-tar"),
    ):
        assert daemon.api("GET", path).headers["Content-Type"] == kind, path
