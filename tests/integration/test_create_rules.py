"""What a container is made with, and what is refused: names, environment, platforms, limits, filters."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from buildlab import archive, post, stream
from daemonlab import LabDaemon
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    return name


def run(daemon: LabDaemon, *arguments: str) -> str:
    return daemon.docker("run", "--rm", *arguments).ok()


# ---- names and environment -------------------------------------------------------------------------------


def test_a_host_name_with_dots_has_a_short_form(daemon: LabDaemon, name: str) -> None:
    hosts = run(daemon, "-h", "a.b.c", "busybox", "cat", "/etc/hosts").splitlines()
    assert hosts[-1].split()[1:] == ["a.b.c", "a"]
    hosts = run(daemon, "-h", "a", "--domainname", "b.c", "busybox", "cat", "/etc/hosts").splitlines()
    assert hosts[-1].split()[1:] == ["a.b.c", "a"]
    assert run(daemon, "-h", "plain", "busybox", "cat", "/etc/hosts").splitlines()[-1].split()[1:] == [
        "plain"
    ]


def test_environment(daemon: LabDaemon, box: str, name: str) -> None:
    def shown(*flags: str) -> dict[str, str]:
        lines = run(daemon, *flags, "busybox", "/bin/busybox", "env").splitlines()
        return dict(line.split("=", 1) for line in lines)

    assert shown("-e", "HOME=")["HOME"] == "/root" and shown("-u", "daemon", "-e", "HOME=")["HOME"] != "/root"
    assert shown("-e", "HOME=/x")["HOME"] == "/x"
    assert "HOSTNAME" not in shown("-e", "HOSTNAME") and "HOSTNAME" in shown()
    text = "FROM busybox\nENV OWN=1 OTHER=2\n"
    stream(post(daemon, archive({"Dockerfile": text}), t=f"{name}:env"))
    found = run(daemon, "-e", "OWN", f"{name}:env", "env")
    assert "OTHER=2" in found and "OWN" not in found
    inside = daemon.docker("exec", "-e", "HOME=", box, "sh", "-c", "echo $HOME").ok()
    assert inside == "/root"


# ---- limits ----------------------------------------------------------------------------------------------


def test_quotas_are_lifted(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--cpu-quota=-1", "busybox", "sleep", "1000").ok()
    v1 = daemon.api("GET", "/info").json["CgroupVersion"] == "1"
    file = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us" if v1 else "/sys/fs/cgroup/cpu.max"

    def quota() -> str:
        return daemon.docker("exec", name, "cat", file).ok().split()[0]

    none = "-1" if v1 else "max"
    assert quota() == none
    daemon.docker("update", "--cpu-quota=50000", name).ok()
    assert quota() == "50000"
    daemon.docker("update", "--cpu-quota=-1", name).ok()
    assert quota() == none
    assert daemon.api("GET", f"/containers/{name}/json").json["HostConfig"]["CpuQuota"] == -1
    assert daemon.api("GET", f"/containers/{name}/json").json["HostConfig"]["PidsLimit"] is None
    daemon.docker("update", "--pids-limit", "50", name).ok()
    daemon.docker("update", "--pids-limit", "-1", name).ok()
    assert daemon.api("GET", f"/containers/{name}/json").json["HostConfig"]["PidsLimit"] == 0


def test_limits_of_windows_do_nothing_and_say_so(daemon: LabDaemon) -> None:
    made = daemon.api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"CpuCount": 2}}).json
    assert made["Warnings"] == ["CpuCount is for Windows containers and has no effect"]
    assert daemon.api("GET", f"/containers/{made['Id']}/json").json["HostConfig"]["CpuCount"] == 2


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "config", "status", "words"),
    [
        ({"Annotations": {"": "x"}}, {}, 400, "the empty string is not permitted as an annotation key"),
        ({"NetworkMode": "container:BOX"}, {"ExposedPorts": {"80/tcp": {}}}, 400, "port exposing and the"),
        ({"NetworkMode": "container:BOX", "PublishAllPorts": True}, {}, 400, "port publishing and the"),
        ({"NetworkMode": "container:BOX", "Dns": ["1.1.1.1"]}, {}, 400, "dns and the network mode"),
        ({"NetworkMode": "container:BOX"}, {"Hostname": "x"}, 400, "hostname and the network mode"),
        ({"UTSMode": "host"}, {"Hostname": "x"}, 400, "hostname and the UTS mode"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, {}, 409,
            "can't create 'AutoRemove' container with restart policy",
        ),
    ],
)  # fmt: skip
def test_wishes_that_contradict_each_other(
    daemon: LabDaemon, box: str, host: dict[str, Any], config: dict[str, Any], status: int, words: str
) -> None:
    text = json.dumps({"Image": "busybox", **config, "HostConfig": host}).replace("BOX", box)
    answer = daemon.api("POST", "/containers/create", json.loads(text))
    assert answer.status == status and words in answer.message


def test_what_the_image_exposes_is_no_wish(daemon: LabDaemon, box: str, name: str) -> None:
    stream(post(daemon, archive({"Dockerfile": "FROM busybox\nEXPOSE 80\n"}), t=f"{name}:exposes"))
    run(daemon, "--network", f"container:{box}", f"{name}:exposes", "true")


def test_a_directory_without_devices(daemon: LabDaemon, tmp_path: Any) -> None:
    failed = daemon.docker("run", "--rm", "--device", str(tmp_path), "busybox", "true")
    assert failed.errors.strip().endswith("not a device node") or "not a device node" in failed.errors


@pytest.mark.parametrize("keys", ["ctrl-A,a", "ctrl-aa", "ctrl-", "ab", "Ctrl-p"])
def test_detach_keys(daemon: LabDaemon, box: str, keys: str) -> None:
    answer = daemon.api("POST", f"/containers/{box}/exec", {"Cmd": ["true"], "DetachKeys": keys})
    assert answer.status == 400 and answer.message == f"Invalid escape keys ({keys}) provided"


@pytest.mark.parametrize("keys", ["ctrl-@,DEL,a", "ctrl-[", "x", "A"])
def test_detach_keys_that_are_some(daemon: LabDaemon, box: str, keys: str) -> None:
    answer = daemon.api("POST", f"/containers/{box}/exec", {"Cmd": ["true"], "DetachKeys": keys})
    assert answer.status == 201


def test_a_digest_is_no_name(daemon: LabDaemon) -> None:
    for name in ("sha256:x", "sha256"):
        failed = daemon.docker("tag", "busybox", name)
        assert "refusing to create an ambiguous tag using digest algorithm as name" in failed.errors


def test_words_that_clients_match(daemon: LabDaemon, box: str) -> None:
    def said(path: str, body: Any = None) -> tuple[int, str]:
        answer = daemon.api("POST", path, body)
        return answer.status, answer.message

    empty = (400, "config cannot be empty in order to create a container")
    assert said("/containers/create", {}) == said("/containers/create", {"HostConfig": {}}) == empty
    assert said("/containers/create", b"") == (400, "invalid JSON: got EOF while reading request body")
    assert said(f"/containers/{box}/start", {"Binds": []})[1].startswith("starting container with non-empty")
    assert daemon.api("POST", f"/containers/{box}/start", {}).status == 304
    kill = "cannot kill container: "
    assert said(f"/containers/{box}/kill?signal=FOO") == (400, f"{kill}{box}: invalid signal: FOO")
    assert said("/containers/none/kill") == (404, f"{kill}none: No such container: none")
    assert said(f"/containers/{box}/resize?h=&w=1") == (400, 'invalid resize height "": invalid syntax')
    raw = {"Content-Type": "text/plain"}
    refused = daemon.api("POST", "/containers/create", b"{}", headers=raw)
    assert refused.message == "unsupported Content-Type header (text/plain): must be 'application/json'"
    untyped = daemon.api("POST", "/containers/create", b"{}")
    assert untyped.message == "malformed Content-Type header (): mime: no media type"


# ---- platforms -------------------------------------------------------------------------------------------


def test_an_image_of_another_platform(daemon: LabDaemon, name: str) -> None:
    box = daemon.docker("create", "busybox").ok()
    imported = daemon.docker(
        "import", "--platform", "linux/s390x", "-", f"{name}:other", input=daemon.docker("export", box).raw
    )
    imported.ok()
    made = daemon.api("POST", "/containers/create", {"Image": f"{name}:other", "Cmd": ["true"]})
    assert made.status == 201
    (warning,) = made.json["Warnings"]
    assert warning.startswith(
        "The requested image's platform (linux/s390x) does not match the detected host platform"
    )
    asked = daemon.api(
        "POST", "/containers/create?platform=linux/s390x", {"Image": f"{name}:other", "Cmd": ["true"]}
    )
    assert (asked.status, asked.json["Warnings"]) == (201, [])
    missing = daemon.api("POST", "/containers/create?platform=linux/arm64", {"Image": "busybox"})
    assert missing.status == 404
    for one in (box, made.json["Id"], asked.json["Id"]):
        daemon.docker("rm", one).ok()
    daemon.docker("rmi", f"{name}:other").ok()


@pytest.mark.parametrize(
    "platform", ["linux/nonsense", "plan10/amd64", "nonsense", "linux/amd64/v1/x", "linux//x", "a b"]
)
def test_platforms_that_do_not_exist(daemon: LabDaemon, platform: str) -> None:
    """No registry is asked, which would take its time."""
    start = time.monotonic()
    for path in ("/containers/create?", "/images/create?fromImage=nothing&tag=x&"):
        body = {"Image": "busybox"} if "containers" in path else None
        answer = daemon.api("POST", f"{path}platform={platform.replace(' ', '%20')}", body)
        assert answer.status == 400 and answer.message.endswith("invalid argument")
    assert time.monotonic() - start < patiently(5)


# ---- cgroup namespaces -----------------------------------------------------------------------------------


def test_a_privileged_container_may_have_its_own_cgroup_namespace(daemon: LabDaemon) -> None:
    def of(*flags: str) -> str:
        return run(daemon, "--privileged", *flags, "busybox", "readlink", "/proc/self/ns/cgroup")

    host = os.readlink("/proc/self/ns/cgroup")
    assert of() == of("--cgroupns", "host") == host
    assert of("--cgroupns", "private") != host


# ---- filters ---------------------------------------------------------------------------------------------


def test_filters_of_containers(daemon: LabDaemon, box: str, name: str) -> None:
    running, ended = f"{name}-r", f"{name}-e"
    daemon.docker("run", "-d", "--name", running, "-p", "24781:80", "busybox", "sleep", "1000").ok()
    daemon.docker("run", "--name", ended, "busybox", "true").ok()

    def found(*flags: str) -> set[str]:
        return set(daemon.docker("ps", "--format", "{{.Names}}", *flags).ok().split())

    assert found("--filter", f"since={box}") == {running}
    assert found("-a", "--filter", f"since={box}") == {running, ended}
    assert found("--filter", f"before={ended}") == {box, running}
    assert found("--filter", "exited=0") == set() and found("-a", "--filter", "exited=0") == {ended}
    assert found("--filter", "publish=24781") == {running} and found("--filter", "publish=80") == set()
    assert found("--filter", "expose=80") == {running}
    assert found("--filter", "publish=1", "--filter", "expose=80") == {running}
    assert found("--filter", "name=") == {box, running}


def test_filters_of_images(daemon: LabDaemon, name: str) -> None:
    box = daemon.docker("create", "busybox").ok()
    first, second = (daemon.docker("commit", box, f"{name}:{n}").ok() for n in (1, 2))

    def found(**filters: list[str]) -> list[str]:
        return [image["Id"] for image in daemon.api("GET", "/images/json", filters=filters).json]

    assert found(since=[f"{name}:1"]) == [second]
    assert first in found(before=[f"{name}:2"]) and second not in found(before=[f"{name}:2"])
    created = daemon.api("GET", f"/images/{name}:2/json").json["Created"]
    assert first in found(until=[created]) and second not in found(until=[created])
    assert set(found(reference=[f"docker.io/library/{name}"])) == {first, second}
    assert found(reference=[f"docker.io/library/{name}:1"]) == [first]
    daemon.docker("rm", box).ok()
    daemon.docker("rmi", f"{name}:1", f"{name}:2").ok()


def test_networks_with_a_slash(daemon: LabDaemon) -> None:
    assert daemon.api("GET", "/networks/").json == daemon.api("GET", "/networks").json
