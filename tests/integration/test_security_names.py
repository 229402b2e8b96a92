"""Names from clients that become parts of paths on the host: no one of them leads out of its directory.

One table of every such parameter of the API, tried with one list of hostile names. None may be carried out,
none may end in an internal error, and nothing may lie anywhere that was not there before.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from buildlab import archive, error, post
from daemonlab import Answer, LabDaemon

from wherry.linux import cgroups

pytestmark = pytest.mark.kernel

Call = Callable[[LabDaemon, str], Answer]


def create(**host: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}


def container(make: Callable[[str], dict[str, Any]]) -> Call:
    """Create a container, start it where that was possible, and remove it; the answer that refused."""

    def call(daemon: LabDaemon, value: str) -> Answer:
        answer = daemon.api("POST", "/containers/create", make(value))
        if answer.status != 201:
            return answer
        identifier = answer.json["Id"]
        try:
            return daemon.api("POST", f"/containers/{identifier}/start")
        finally:
            assert daemon.api("DELETE", f"/containers/{identifier}", force=1, v=1).status == 204

    return call


def plain(method: str, path: str, body: Callable[[str], Any] | None = None) -> Call:
    """``{}`` in the path stands for the value, every character of it escaped."""

    def call(daemon: LabDaemon, value: str) -> Answer:
        escaped = quote(value.encode("utf-8", "surrogatepass"), safe="").replace(".", "%2e")
        return daemon.api(method, path.replace("{}", escaped), None if body is None else body(value))

    return call


def build(**query: Callable[[str], Any]) -> Call:
    def call(daemon: LabDaemon, value: str) -> Answer:
        answer = post(
            daemon,
            archive({"Dockerfile": "FROM busybox\nRUN true\n"}),
            **{k: f(value) for k, f in query.items()},
        )
        if answer.status == 200:
            answer.status, answer.body = 400, json.dumps({"message": error(answer)}).encode()
        return answer

    return call


def run_mount(kind: str) -> Call:
    def call(daemon: LabDaemon, value: str) -> Answer:
        text = f'FROM busybox\nRUN --mount=type={kind},id="{value}",target=/m touch /m/x || true\n'
        return post(daemon, archive({"Dockerfile": text}))

    return call


REFUSED: dict[str, Call] = {
    "cgroup parent": container(lambda v: create(CgroupParent=v)),
    "cgroup parent below": container(lambda v: create(CgroupParent=f"/a/{v}")),
    "cgroup parent of a build": build(cgroupparent=str),
    "container name": plain("POST", "/containers/create?name={}", lambda _v: create()),
    "runtime": container(lambda v: create(Runtime=v)),
    "log driver": container(lambda v: create(LogConfig={"Type": v})),
    "volume of a bind": container(lambda v: create(Binds=[f"{v}:/d"])),
    "volume of a mount": container(
        lambda v: create(Mounts=[{"Type": "volume", "Source": v, "Target": "/d"}])
    ),
    "subpath": container(
        lambda v: create(
            Mounts=[{"Type": "volume", "Source": "vol", "Target": "/d", "VolumeOptions": {"Subpath": v}}]
        )
    ),
    "volume driver": container(lambda v: create(Binds=["vx:/d"], VolumeDriver=v)),
    "secret": container(lambda v: create(Secrets=[{"Name": v}])),
    "secret's target": container(lambda v: create(Secrets=[{"Name": "known", "Target": v}])),
    "sysctl": container(lambda v: create(Sysctls={f"net.{v}": "1"})),
    "device inside": container(
        lambda v: create(
            Devices=[{"PathOnHost": "/dev/null", "PathInContainer": f"/dev/{v}", "CgroupPermissions": "rwm"}]
        )
    ),
    "device of the host": container(
        lambda v: create(Devices=[{"PathOnHost": f"/dev/{v}/x", "PathInContainer": "/dev/x"}])
    ),
    "CDI device": container(lambda v: create(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": [v]}])),
    "GPU": container(
        lambda v: create(DeviceRequests=[{"Driver": "nvidia", "DeviceIDs": [v], "Capabilities": [["gpu"]]}])
    ),
    "network mode": container(lambda v: create(NetworkMode=v)),
    "namespace of": container(lambda v: create(NetworkMode=f"container:{v}")),
    "volumes from": container(lambda v: create(VolumesFrom=[v])),
    "link": container(lambda v: create(Links=[f"{v}:x"])),
    "image": container(lambda v: {"Image": v, "Cmd": ["true"]}),
    "hostname": container(lambda v: {**create(), "Hostname": v}),
    "platform": plain("POST", "/containers/create?platform=linux%2F{}", lambda _v: create()),
    "volume name": plain("POST", "/volumes/create", lambda v: {"Name": v}),
    "driver of a volume": plain("POST", "/volumes/create", lambda v: {"Name": "vy", "Driver": v}),
    "volume to rename": plain("POST", "/volumes/vol/rename?name={}"),
    "volume to clone": plain("POST", "/volumes/vol/clone", lambda v: {"Name": v}),
    "volume to remove": plain("DELETE", "/volumes/{}"),
    "volume to show": plain("GET", "/volumes/{}"),
    "volume to export": plain("GET", "/volumes/{}/export"),
    "snapshot": plain("POST", "/volumes/vol/snapshots", lambda v: {"Name": v}),
    "snapshot to remove": plain("DELETE", "/volumes/vol/snapshots/{}"),
    "snapshot to restore": plain("POST", "/volumes/vol/snapshots/{}/restore"),
    "network name": plain("POST", "/networks/create", lambda v: {"Name": v}),
    "network driver": plain("POST", "/networks/create", lambda v: {"Name": "nx", "Driver": v}),
    "IPAM driver": plain("POST", "/networks/create", lambda v: {"Name": "nx", "IPAM": {"Driver": v}}),
    "bridge": plain(
        "POST", "/networks/create", lambda v: {"Name": "nx", "Options": {"com.docker.network.bridge.name": v}}
    ),
    "parent interface": plain(
        "POST", "/networks/create", lambda v: {"Name": "nx", "Driver": "macvlan", "Options": {"parent": v}}
    ),
    "configuration from": plain(
        "POST", "/networks/create", lambda v: {"Name": "nx", "ConfigFrom": {"Network": v}}
    ),
    "interface name": container(
        lambda v: {
            **create(),
            "NetworkingConfig": {
                "EndpointsConfig": {"bridge": {"DriverOpts": {"com.docker.network.endpoint.ifname": v}}}
            },
        }
    ),
    "network to remove": plain("DELETE", "/networks/{}"),
    "secret name": plain("POST", "/secrets/create", lambda v: {"Name": v, "Data": "eA=="}),
    "secret to remove": plain("DELETE", "/secrets/{}"),
    "container to remove": plain("DELETE", "/containers/{}?force=1"),
    "container to start": plain("POST", "/containers/{}/start"),
    "container's log": plain("GET", "/containers/{}/logs?stdout=1"),
    "exec": plain("POST", "/exec/{}/start", lambda _v: {"Detach": True}),
    "image to tag": plain("POST", "/images/busybox/tag?repo={}"),
    "tag": plain("POST", "/images/busybox/tag?repo=x&tag={}"),
    "image to pull": plain("POST", "/images/create?fromImage={}"),
    "base image": plain("POST", "/images/bootstrap?name={}"),
    "variant of a base": plain("POST", "/images/bootstrap?name=debian&variant={}"),
    "build's tag": build(t=str),
    "Dockerfile": build(dockerfile=str),
    "target": build(target=str),
    "network of a build": build(networkmode=str),
    "build in the history": plain("DELETE", "/build/history/{}"),
    "build's output": plain("GET", "/build/outputs/{}"),
    "session": plain("POST", "/build/sessions/{}/context?name=&key=abc"),
    "plugin": plain("GET", "/plugins/{}/json"),
}


def always(_value: str) -> bool:
    return True


def climbs(value: str) -> bool:
    return ".." in value.split("/")


def is_text(value: str) -> bool:
    return "\udcff" not in value


ONLY: dict[str, Callable[[str], bool]] = {
    "secret's target": climbs,
    "subpath": climbs,
    "device inside": lambda value: climbs(value) or "\0" in value,
    "volume of a bind": lambda value: not value.startswith("/"),
    **dict.fromkeys(("cgroup parent of a build", "build's tag", "Dockerfile", "target"), is_text),
    "network of a build": is_text,
}
"""Where something else than a name may stand as well, or only text can be sent."""


@pytest.fixture
def known(daemon: LabDaemon) -> Iterator[LabDaemon]:
    assert daemon.api("POST", "/volumes/create", {"Name": "vol"}).status == 201
    assert daemon.api("POST", "/secrets/create", {"Name": "known", "Data": "eA=="}).status in (200, 201)
    yield daemon
    daemon.api("DELETE", "/secrets/known")


def hostile(marker: str) -> list[str]:
    up = "../" * 6
    return [
        f"{up}{marker}",
        f"{'../' * 20}{marker}",
        f"../{marker}",
        f"x/../../{marker}",
        f"..//../{marker}",
        "..",
        f"/../{marker}/..",
        f"{marker}/../..",
        f"..\0{marker}",
        f"{up}{marker}\n",
        f"..\\{marker}/../{marker}",
        f"{marker}\udcff/..",
    ]


def ancestors(daemon: LabDaemon) -> set[Path]:
    """Every directory that a way up from one of the daemon's could end in."""
    starts = [
        daemon.root / "volumes/x",
        daemon.run / "tasks/x",
        daemon.run / "netns",
        daemon.root / "build/x",
    ]
    starts += [root / daemon.cgroup for root in cgroups.layout().directories("/")]
    starts += [Path("/etc/docker/certs.d"), Path("/run/docker/plugins"), Path.cwd()]
    return {directory for start in starts for directory in start.parents if directory.is_dir()}


def found(daemon: LabDaemon, marker: str) -> list[Path]:
    """Whatever lies outside of what the daemon may write."""
    return [
        directory / entry
        for directory in ancestors(daemon)
        for entry in os.listdir(directory)
        if marker in entry
    ]


@pytest.mark.parametrize("what", list(REFUSED))
def test_no_name_leads_out_of_its_directory(known: LabDaemon, what: str) -> None:
    marker, before = f"out{secrets.token_hex(4)}", len(known.log)
    values = [value for value in hostile(marker) if ONLY.get(what, always)(value)]
    for value in values:
        answer = REFUSED[what](known, value)
        assert 400 <= answer.status < 500 or answer.status == 501, (value, answer.status, answer.body)
        assert answer.message
    assert found(known, marker) == []
    assert "Traceback" not in known.log[before:]


@pytest.mark.parametrize("what", ["cache", "secret", "ssh"])
def test_ids_of_mounts_are_no_paths(daemon: LabDaemon, what: str) -> None:
    """Any text is an id here; it is looked up, or hashed, and never a part of a path."""
    marker, before = f"out{secrets.token_hex(4)}", len(daemon.log)
    for value in (f"{'../' * 8}{marker}", f"/{marker}", ".."):
        assert run_mount(what)(daemon, value).status == 200
    assert found(daemon, marker) == []
    assert "Traceback" not in daemon.log[before:]


def test_a_cgroup_parent_is_any_path_below_the_root(daemon: LabDaemon, name: str) -> None:
    """Names as systemd gives its slices are directories like others, as with Docker's driver cgroupfs."""
    parent = f"{daemon.cgroup}/a-b.slice"
    daemon.docker(
        "run", "-d", "--name", name, f"--cgroup-parent={parent}//.", "busybox", "sleep", "1000"
    ).ok()
    identifier = daemon.docker("inspect", "-f", "{{.Id}} {{.HostConfig.CgroupParent}}", name).ok()
    identifier, shown = identifier.split(" ", 1)
    assert shown == f"{parent}//."
    places = [d for d in cgroups.layout().directories(f"/{parent}/{identifier}") if d.is_dir()]
    assert places
    daemon.docker("rm", "-f", name).ok()
    assert not any(place.exists() for place in places)
    for directory in cgroups.layout().directories(f"/{parent}"):
        if directory.is_dir():
            directory.rmdir()
