"""What clients of older API versions see, along the Engine API's version history from 1.40 on."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from daemonlab import LabDaemon
from labclients import Answer

pytestmark = pytest.mark.kernel


def at(daemon: LabDaemon, version: int, path: str) -> Any:
    answer = daemon.api("GET", f"/v1.{version}{path}")
    assert answer.status == 200, answer.body
    return answer.json


def test_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("network", "create", name).ok()
    box = daemon.docker(
        *("create", "--name", name, "--network", name, "--network-alias", "al", "--annotation", "a=b"),
        *("--mac-address", "02:42:00:00:00:09", "-h", "own", "busybox"),
    ).ok()
    path = f"/containers/{box}/json"

    def endpoint(version: int) -> dict[str, Any]:
        return dict(at(daemon, version, path)["NetworkSettings"]["Networks"][name])

    assert endpoint(44)["Aliases"] == ["al", box[:12], "own"]
    assert endpoint(45)["Aliases"] == ["al"]
    for version, there in ((47, False), (48, True)):
        assert ("ImageManifestDescriptor" in at(daemon, version, path)) == there
    old, new = at(daemon, 51, path), at(daemon, 52, path)
    assert old["Config"]["OnBuild"] is None and "OnBuild" not in new["Config"]
    assert old["Config"]["MacAddress"] == "02:42:00:00:00:09" and "MacAddress" not in new["Config"]
    assert old["GraphDriver"]["Name"] and "Storage" not in old
    assert new["Storage"]["RootFS"] and "GraphDriver" not in new
    assert old["NetworkSettings"]["Bridge"] == "" and "Bridge" not in new["NetworkSettings"]
    summary = "/containers/json?all=1"
    for version, there in ((45, False), (46, True)):
        assert ("Annotations" in at(daemon, version, summary)[0]["HostConfig"]) == there
    for first, member in ((48, "ImageManifestDescriptor"), (52, "Health")):
        assert member not in at(daemon, first - 1, summary)[0] and member in at(daemon, first, summary)[0]
    daemon.docker("rm", name).ok()
    daemon.docker("network", "rm", name).ok()


def test_create(daemon: LabDaemon, name: str) -> None:
    body = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {}, name: {}}}}
    old = daemon.api("POST", "/v1.43/containers/create", body)
    assert old.status == 400
    assert old.message == f"Container cannot be created with multiple network endpoints: bridge, {name}"
    ports = {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": []}}}
    for version, wanted in ((51, {"80/tcp": [{"HostIp": "", "HostPort": ""}]}), (53, {})):
        made = daemon.api("POST", f"/v1.{version}/containers/create", ports).json
        shown = daemon.api("GET", f"/containers/{made['Id']}/json").json["HostConfig"]["PortBindings"]
        assert shown == wanted
        daemon.api("DELETE", f"/containers/{made['Id']}")
    for version, warnings in ((51, 0), (52, 1), (53, 0)):
        made = daemon.api("POST", f"/v1.{version}/containers/create", ports).json
        assert len(made["Warnings"]) == warnings, (version, made)
        daemon.api("DELETE", f"/containers/{made['Id']}")
    mac = {"Image": "busybox", "MacAddress": "02:42:00:00:00:0a"}
    for version, wanted, warnings in ((43, mac["MacAddress"], 0), (51, mac["MacAddress"], 1), (52, None, 0)):
        made = daemon.api("POST", f"/v1.{version}/containers/create", mac).json
        shown = daemon.api("GET", f"/v1.51/containers/{made['Id']}/json").json["Config"].get("MacAddress")
        assert (shown or None, len(made["Warnings"])) == (wanted, warnings), version
        daemon.api("DELETE", f"/containers/{made['Id']}")
    ignored = daemon.api("POST", "/v1.40/containers/create?platform=plan9/vax", {"Image": "busybox"})
    assert ignored.status == 201
    daemon.api("DELETE", f"/containers/{ignored.json['Id']}")


def test_readonly_binds_are_not_recursive_before_1_44(daemon: LabDaemon) -> None:
    """The mount below the bind is the host's own /dev/shm."""
    script = "touch /d/shm/wherry-probe 2>/dev/null && rm /d/shm/wherry-probe && echo 0 || echo 1"
    for version, wanted in ((43, "0"), (44, "1")):
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"Binds": ["/dev:/d:ro"]},
        }
        made = daemon.api("POST", f"/v1.{version}/containers/create", body).json["Id"]
        assert daemon.docker("start", "-a", made).ok() == wanted
        daemon.docker("rm", made).ok()


def test_image(daemon: LabDaemon) -> None:
    path = "/images/busybox/json"
    assert at(daemon, 43, path)["VirtualSize"] == at(daemon, 43, path)["Size"]
    assert "VirtualSize" not in at(daemon, 44, path)
    assert "ContainerConfig" in at(daemon, 44, path) and "ContainerConfig" not in at(daemon, 45, path)
    assert "Descriptor" not in at(daemon, 47, path) and "Descriptor" in at(daemon, 48, path)
    assert "Manifests" not in at(daemon, 47, path + "?manifests=1")
    assert "Manifests" in at(daemon, 48, path + "?manifests=1")
    assert (
        at(daemon, 49, path)["Config"]["Hostname"] == "" and "Hostname" not in at(daemon, 50, path)["Config"]
    )
    old, new = at(daemon, 51, path), at(daemon, 52, path)
    assert (old["Parent"], old["DockerVersion"], old["Config"]["Entrypoint"]) == ("", "", None)
    assert not {"Parent", "DockerVersion", "GraphDriver"} & set(new) and "Entrypoint" not in new["Config"]
    one = "/images/json"
    assert "VirtualSize" in at(daemon, 43, one)[0] and "VirtualSize" not in at(daemon, 44, one)[0]
    assert "Descriptor" not in at(daemon, 47, one)[0] and "Descriptor" in at(daemon, 48, one)[0]
    assert at(daemon, 50, one)[0]["Containers"] == -1 and at(daemon, 51, one)[0]["Containers"] >= 0
    assert at(daemon, 41, one + "?shared-size=1")[0]["SharedSize"] == -1
    assert "Manifests" not in at(daemon, 46, one + "?manifests=1")[0]
    both = daemon.api("GET", "/v1.49" + path + "?manifests=1&platform=linux/amd64")
    assert both.message == "conflicting options: manifests and platform options cannot both be set"


_AMD64, _ARM64 = (json.dumps({"os": "linux", "architecture": name}) for name in ("amd64", "arm64"))
_TOO_OLD = "multiple platform parameters are not supported in this API version; use API version 1.52 or later"


def test_platforms_of_archives(daemon: LabDaemon, name: str) -> None:
    """None is read before 1.48, and one before 1.52."""
    daemon.docker("tag", "busybox", name).ok()
    archive = daemon.api("GET", f"/images/get?names={name}").body
    both = f"platform={quote(_AMD64)}&platform={quote(_AMD64)}"

    def loaded(version: int, query: str) -> Answer:
        return daemon.api("POST", f"/v1.{version}/images/load?{query}", body=archive)

    for version, query, status in (
        (47, f"platform={quote(_ARM64)}", 200),
        (48, f"platform={quote(_ARM64)}", 404),
        (47, both, 200),
        (51, both, 400),
        (52, both, 200),
    ):
        answer = daemon.api("GET", f"/v1.{version}/images/get?names=busybox&{query}")
        assert answer.status == status, (version, query, answer.body[:200])
        assert status != 400 or answer.message == _TOO_OLD
    assert (loaded(51, both).status, loaded(51, both).message) == (400, _TOO_OLD)
    assert (loaded(52, both).status, loaded(47, both).status) == (200, 200)
    daemon.docker("rmi", name).ok()


def test_identities_need_manifests(daemon: LabDaemon) -> None:
    for version, query, status in ((53, "identity=1", 200), (54, "identity=1", 400), (54, "", 200)):
        assert daemon.api("GET", f"/v1.{version}/images/json?{query}").status == status, (version, query)
    assert daemon.api("GET", "/v1.54/images/json?identity=1&manifests=1").status == 200
    refused = daemon.api("GET", "/v1.54/images/json?identity=1")
    assert refused.message == "conflicting options: identity requires manifests=1"


def test_attestations(daemon: LabDaemon) -> None:
    old = daemon.api("GET", "/v1.54/images/busybox/attestations")
    assert (old.status, old.message) == (404, "page not found")
    assert at(daemon, 55, "/images/busybox/attestations") == []
    two = daemon.api("GET", "/v1.55/images/busybox/attestations?platform=a&platform=b")
    assert (two.status, two.message) == (400, "only one platform value is currently supported")


def test_statistics(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "60").ok()
    for version in (51, 52):
        reading = at(daemon, version, f"/containers/{name}/stats?stream=0&one-shot=1")
        assert reading["os_type"] == "linux"


def test_an_image_without_a_name(daemon: LabDaemon, name: str) -> None:
    box = daemon.docker("create", "busybox").ok()
    image = daemon.docker("commit", box).ok()

    def shown(version: int) -> Any:
        return next(i for i in at(daemon, version, "/images/json") if i["Id"] == image)

    assert (shown(42)["RepoTags"], shown(42)["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert (shown(43)["RepoTags"], shown(43)["RepoDigests"]) == ([], [])
    daemon.docker("rm", box).ok()
    daemon.docker("rmi", image).ok()


def test_info(daemon: LabDaemon) -> None:
    old = at(daemon, 48, "/info")
    assert (old["BridgeNfIptables"], old["BridgeNfIp6tables"]) == (False, False)
    assert "FirewallBackend" not in old and "Expected" in old["RuncCommit"]
    assert "DiscoveredDevices" not in old
    assert "AllowNondistributableArtifactsCIDRs" in at(daemon, 46, "/info")["RegistryConfig"]
    new = at(daemon, 50, "/info")
    assert new["FirewallBackend"] == {"Driver": "nftables"} and "Expected" not in new["RuncCommit"]
    assert "BridgeNfIptables" not in new and "DiscoveredDevices" in new
    assert "BridgeNfIptables" in at(daemon, 49, "/info") and "FirewallBackend" in at(daemon, 49, "/info")


def test_disk_usage(daemon: LabDaemon) -> None:
    legacy, usage = {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}, {
        "ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage",
    }  # fmt: skip
    assert set(at(daemon, 51, "/system/df")) == legacy | usage
    assert set(at(daemon, 52, "/system/df")) == legacy | usage
    assert set(at(daemon, 52, "/system/df?verbose=0")) == usage
    assert set(at(daemon, 53, "/system/df")) == usage
    assert set(at(daemon, 42, "/system/df?type=image")) == {"LayersSize", "Images", "ImageUsage"}
    assert set(at(daemon, 41, "/system/df?type=image")) == legacy | usage
    assert daemon.api("GET", "/v1.52/system/df?verbose=x").message.startswith("invalid value for verbose: x")


def test_events(daemon: LabDaemon) -> None:
    box = daemon.docker("create", "busybox").ok()
    daemon.docker("rm", box).ok()
    for version, there in ((51, True), (52, False)):
        answer = daemon.api(
            "GET",
            f"/v1.{version}/events",
            since=1,
            until=f"{time.time():.6f}",
            filters={"container": [box], "event": ["create"]},
        )
        (event,) = answer.lines
        assert ("status" in event and event["id"] == box and event["from"] == "busybox") == there


@pytest.mark.parametrize(
    ("accept", "kind", "prefix"),
    [
        ("", "application/json", b"{"),
        ("application/json", "application/json", b"{"),
        ("*/*", "application/x-ndjson", b"{"),
        ("application/jsonl", "application/jsonl", b"{"),
        ("application/x-ndjson;q=0.5, application/json-seq", "application/json-seq", b"\x1e{"),
    ],
)
def test_event_streams(daemon: LabDaemon, accept: str, kind: str, prefix: bytes) -> None:
    headers = {"Accept": accept} if accept else {}
    until = f"{time.time():.6f}"
    answer = daemon.api("GET", "/v1.53/events", headers=headers, since=1, until=until)
    assert answer.headers["Content-Type"] == kind
    assert answer.body.startswith(prefix)


def test_networks(daemon: LabDaemon) -> None:
    assert "Status" not in at(daemon, 51, "/networks/bridge") and "Status" in at(
        daemon, 52, "/networks/bridge"
    )
    assert all("Containers" in one for one in at(daemon, 51, "/networks"))
    assert not any("Containers" in one for one in at(daemon, 52, "/networks"))
