"""Requests that cannot be carried out: status and words as dockerd 28.5 answered the same ones, side by side.

Where it answers 500 to what the client got wrong, 400 is right here (``docs/differences.md``).
"""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

NO_SWARM = "This node is not a swarm manager."
ENDPOINT = "invalid config for network {net}: invalid endpoint settings:\n"


def filtered(path: str, **filters: Any) -> str:
    return f"{path}?filters={quote(json.dumps({k.replace('_', '-'): v for k, v in filters.items()}))}"


def host(**members: Any) -> dict[str, Any]:
    return {"HostConfig": members}


def mount(**members: Any) -> dict[str, Any]:
    return host(Mounts=[members])


def on(**members: Any) -> dict[str, Any]:
    return {
        "NetworkingConfig": {"EndpointsConfig": {"{net}": members}},
        "HostConfig": {"NetworkMode": "{net}"},
    }


CREATES: list[tuple[dict[str, Any], int, str]] = [
    (host(Memory=-1), 400, "Minimum memory limit allowed is 6MB"),
    (host(MemoryReservation=1), 400, "Minimum memory reservation allowed is 6MB"),
    (host(CpuShares=-1), 400, "invalid CPU shares (-1): value must be a positive integer"),
    (host(NanoCpus=10**9, CpuPeriod=10**5), 400, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
    (host(NanoCpus=10**9, CpuQuota=10**5), 400, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    (host(CpusetCpus="x"), 400, "Invalid value x for cpuset cpus: invalid format: x"),
    (host(Isolation="hyperv"), 400, "invalid isolation (hyperv): linux only supports 'default'"),
    (host(NetworkMode="container:"), 400, "invalid network mode: invalid container format container:<name|id>"),
    (host(NetworkMode="container:nosuch"), 400, "joining network namespace of container: No such container: nosuch"),
    (host(LogConfig={"Type": "bogus"}), 400, 'error looking up logging plugin bogus: plugin "bogus" not found'),
    (host(SecurityOpt=["bogus"]), 400, 'invalid --security-opt 1: "bogus"'),
    (host(ExtraHosts=["x"]), 400, 'bad format for add-host: "x"'),
    (host(ExtraHosts=["x:y"]), 400, 'invalid IP address in add-host: "y"'),
    (host(PortBindings={"x": [{"HostPort": "1"}]}), 400, 'invalid port specification: "x"'),
    (host(PortBindings={"80-81/tcp": [{"HostPort": "80"}]}), 400, 'invalid port specification: "80-81"'),
    (host(VolumesFrom=[""]), 400, "volumes-from specification cannot be an empty string"),
    (host(Binds=["{net}:/b:z,Z"]), 400, "invalid mode: z,Z"),
    (host(Binds=["/tmp:/"]), 400, "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
    (host(Binds=["v:/b:shared"]), 400, "invalid volume specification: 'v:/b:shared': invalid mount config for type \"volume\": field BindOptions must not be specified"),
    (host(Binds=["/tmp:/b:nocopy"]), 400, "invalid volume specification: '/tmp:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified"),
    (mount(Type="bogus", Target="/x"), 400, 'invalid mount config for type "bogus": mount type unknown'),
    (mount(Type="bind", Source="/tmp", Target="/x", ImageOptions={}), 400, 'invalid mount config for type "bind": field ImageOptions must not be specified'),
    (mount(Type="tmpfs", Target="/x", TmpfsOptions={"Options": [["uid", "5"]]}), 400, 'invalid mount config for type "tmpfs": invalid option: uid'),
    (mount(Type="tmpfs", Target="/x", TmpfsOptions={"Options": [[]]}), 400, 'invalid mount config for type "tmpfs": invalid option array length'),
    (mount(Type="volume", Target="/x", VolumeOptions={"Subpath": "x"}), 400, 'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'),
    (on(IPAMConfig={"IPv4Address": "x"}), 400, ENDPOINT + "invalid IPv4 address: x"),
    (on(IPAMConfig={"IPv4Address": "1.2.3.4"}), 400, ENDPOINT + "no configured subnet or ip-range contain the IP address 1.2.3.4"),
    (on(IPAMConfig={"IPv4Address": "x", "LinkLocalIPs": ["y"]}), 400, ENDPOINT + "* invalid IPv4 address: x\n* invalid link-local IP address: y"),
    (on(MacAddress="x"), 400, "invalid config for network {net}: invalid MAC address x"),
    ({"MacAddress": "zz"}, 400, "invalid config for network bridge: invalid MAC address zz"),
]  # fmt: skip


def test_of_new_containers(daemon: LabDaemon, name: str) -> None:
    """Nothing is made of any of them."""
    daemon.api("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": "10.213.9.0/24"}]}})
    wrong = []
    for members, code, words in CREATES:
        text = json.dumps({"Image": "busybox", "Cmd": ["true"], **members}).replace("{net}", name)
        answer = daemon.api("POST", "/v1.51/containers/create", json.loads(text))
        said = answer.json.get("message", "")
        if (answer.status, said) != (code, words.replace("{net}", name)):
            wrong.append((text, answer.status, said))
    assert wrong == []
    assert daemon.containers() == []


def test_that_an_image_to_be_pulled_would_not_help(daemon: LabDaemon) -> None:
    for members, words in (
        (host(Memory=1), "Minimum memory limit"),
        (mount(Type="bogus", Target="/x"), "unknown"),
    ):
        answer = daemon.api("POST", "/containers/create", {"Image": "nosuch", "Cmd": ["x"], **members})
        assert (answer.status, words in answer.message) == (400, True), answer.message
    assert daemon.api("POST", "/containers/create", {"Image": "nosuch", "Cmd": ["x"]}).status == 404


REQUESTS: list[tuple[str, str, Any, int, str]] = [
    ("GET", filtered("/containers/json", exited=["x"]), None, 400, "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
    ("GET", filtered("/containers/json", health=["x"]), None, 400, "invalid filter 'health=x': invalid value for health (x): must be one of none, starting, healthy, unhealthy"),
    ("GET", filtered("/containers/json", is_task=["x"]), None, 400, "invalid filter 'is-task=[x]'"),
    ("POST", filtered("/containers/prune", until=["1h", "2h"]), None, 400, "more than one until filter specified"),
    ("POST", filtered("/networks/prune", until=["x"]), None, 400, 'failed to parse value as time or duration: "x"'),
    ("GET", filtered("/images/json", dangling=["x", "y"]), None, 400, "invalid filter 'dangling=[x y]'"),
    ("GET", filtered("/plugins", bogus=["x"]), None, 400, "invalid filter 'bogus'"),
    ("GET", filtered("/plugins", enabled=["x"]), None, 400, "invalid filter 'enabled=[x]'"),
    ("DELETE", "/plugins/nosuch", None, 404, 'plugin "nosuch" not found'),
    ("POST", "/plugins/nosuch/enable?timeout=1", None, 404, 'plugin "nosuch" not found'),
    ("GET", "/events?since=5&until=1", None, 400, "`since` time (5) cannot be after `until` time (1)"),
    ("GET", "/networks/bridge?verbose=x", None, 400, 'invalid value for verbose: x: strconv.ParseBool: parsing "x": invalid syntax'),
    ("POST", "/networks/create", {}, 400, "invalid name: name is empty"),
    ("POST", "/networks/create", {"Name": "e", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
    ("POST", "/networks/create", {"Name": "e", "IPAM": {"Config": [{"Subnet": "10.213.9.0/24", "Gateway": "10.213.9.0"}]}}, 409, "failed to allocate gateway (10.213.9.0): Address already in use"),
    ("POST", "/networks/create", {"Name": "e", "IPAM": {"Config": [{"Subnet": "10.213.9.0/24", "Gateway": "10.213.9.255"}]}}, 409, "failed to allocate gateway (10.213.9.255): Address already in use"),
    ("POST", "/networks/create", {"Name": "e", "Options": {"com.docker.network.driver.mtu": "x"}}, 400, 'failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)'),
    ("POST", "/networks/create", {"Name": "e", "Options": {"com.docker.network.bridge.enable_icc": "x"}}, 400, 'failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing "x": invalid syntax)'),
    ("POST", "/networks/create", {"Name": "e", "Driver": "macvlan", "Options": {"parent": "lo"}}, 400, "loopback interface is not a valid macvlan parent link"),
    ("POST", "/networks/bridge/connect", {}, 400, 'invalid name or ID supplied: ""'),
    ("POST", "/volumes/create", {"Name": "v", "ClusterVolumeSpec": {}}, 503, NO_SWARM),
    ("PUT", "/volumes/nosuch?version=1", {}, 503, "volume update only valid for cluster volumes, but swarm is unavailable"),
    ("POST", "/commit", None, 400, 'invalid name or ID supplied: ""'),
    ("POST", "/images/busybox/tag?repo=x&tag=a%20b", None, 400, "invalid tag format"),
    ("POST", f"/images/busybox/tag?repo=x%40sha256:{'a' * 64}", None, 400, "cannot import digest reference"),
    ("GET", "/images/busybox/get?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22s390x%22%7D", None, 404, "image with reference busybox:latest was found but does not provide the specified platform (linux/s390x)"),
    ("POST", "/images/create?fromImage=scratch", None, 403, "'scratch' is a reserved name"),
    ("GET", "/images/search?term=x&limit=1000", None, 400, "limit 1000 is outside the range of [1, 100]"),
    ("POST", "/build?version=7", None, 400, 'invalid version "7"'),
    ("POST", "/build/cancel", None, 400, "build ID not provided"),
]  # fmt: skip


def test_of_all_kinds(daemon: LabDaemon) -> None:
    wrong = []
    for method, path, body, code, words in REQUESTS:
        answer = daemon.api(method, path, body)
        if answer.status != code or not answer.message.startswith(words):
            wrong.append((method, path, answer.status, answer.message))
    assert wrong == []
    assert daemon.api("POST", "/build/cancel?id=nosuch").status < 300
    assert daemon.api("GET", filtered("/events", bogus=["x"]) + "&until=1").status == 200
    assert daemon.api("GET", filtered("/containers/json", is_task=["true"])).json == []


def test_of_a_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--init", "--name", name, "busybox", "sleep", "1000").ok()
    daemon.docker("create", "--name", f"{name}-other", "busybox").ok()
    at = f"/containers/{name}"
    for method, path, body, code, words in (
        ("POST", f"{at}/rename?name=a%20b", None, 400, "Error when allocating new name: Invalid container name (/a b), only"),
        ("POST", f"{at}/rename?name={name}-other", None, 409, "Error when allocating new name: Conflict. The container name"),
        ("POST", f"{at}-other/pause", None, 409, "container "),
        ("DELETE", f"{at}?link=1", None, 409, "Conflict, cannot remove the default link name of the container"),
        ("POST", f"{at}/update", {"CpusetCpus": "9999"}, 400, "Requested CPUs are not available - requested 9999, available:"),
        ("POST", f"{at}/update", {"MemoryReservation": 1}, 400, "Minimum memory reservation allowed is 6MB"),
        ("POST", f"{at}/exec", {"Cmd": "x"}, 400, "invalid JSON: json: cannot unmarshal string into Go struct field ExecOptions.Cmd"),
        ("POST", f"{at}/attach?stream=1&detachKeys=ctrl-A", None, 400, "Invalid detach keys (ctrl-A) provided"),
        ("POST", "/networks/host/connect", {"Container": name}, 400, "cannot connect container to host network - container must be created in host network mode"),
        ("POST", "/networks/none/connect", {"Container": name}, 400, "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
        ("POST", f"/commit?container={name}&changes=BOGUS", None, 400, "BOGUS is not a valid change command"),
    ):  # fmt: skip
        answer = daemon.api(method, path, body)
        assert (answer.status, answer.message.startswith(words)) == (code, True), (path, answer.message)
    daemon.docker("pause", name).ok()
    refused = f'cannot remove container "{name}": container is paused and must be unpaused first'
    assert refused in daemon.docker("rm", name).errors
    daemon.docker("unpause", name).ok()


CREATED = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
STARTED = "create failed: unable to start container process: error during container init: "
STARTS: list[tuple[str, int, str]] = [
    ("busybox nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
    ("busybox /etc", 126, 'exec: "/etc": is a directory: permission denied'),
    ("--sysctl net.bogus=1 busybox true", 127, "/proc/sys/net/bogus: no such file or directory"),
    ("-v /tmp:/etc/passwd busybox true", 125, "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "words"), STARTS)
def test_of_starts(daemon: LabDaemon, command: str, code: int, words: str) -> None:
    done = daemon.docker("run", "--rm", *command.split())
    assert done.code == code and words in done.errors
    assert CREATED in done.errors and STARTED in done.errors


def test_of_networking_and_execs(daemon: LabDaemon, name: str) -> None:
    done = daemon.docker("run", "--rm", "--network", "nosuch", "busybox", "true")
    assert (done.code, "failed to set up container networking: network nosuch not found" in done.errors) == (
        125,
        True,
    )
    daemon.docker("run", "-d", "--init", "--name", name, "busybox", "sleep", "1000").ok()
    failed = "OCI runtime exec failed: exec failed: unable to start container process: "
    for command, code, words in (
        (("nosuch",), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("/etc",), 126, 'exec: "/etc": is a directory: permission denied'),
    ):
        done = daemon.docker("exec", name, *command)
        assert done.code == code and failed + words in done.out + done.errors
    done = daemon.docker("exec", "-w", "/nosuch", name, "true")
    assert (
        'chdir to cwd ("/nosuch") set in config.json failed: no such file or directory'
        in done.out + done.errors
    )


def test_programs_tell_a_container_by_its_mark(daemon: LabDaemon, name: str) -> None:
    shown = daemon.docker("run", "--name", name, "busybox", "stat", "-c", "%a %s", "/.dockerenv").ok()
    assert shown.split() == ["755", "0"]
    assert daemon.docker("diff", name).ok() == ""
