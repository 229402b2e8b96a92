"""Every answer against the Engine API's definition: names, kinds, what is null, what is left out."""

# ruff: noqa: E501
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apidefinition
import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel

OURS = frozenset({"Initiator", "HostConfig.Secrets", "HostConfig.Mounts.*.Owner"})
NULL = frozenset(
    {
        *("ExitCode: null", "HostConfig.MemorySwappiness: null", "Labels: null", "Volumes.*.Labels: null"),
        "*.Labels: null",
    }
)
"""Where Docker has null and the definition forgets to say so."""


def wrong(
    value: Any, method: str, path: str, *optional: str, code: int = 200, ours: frozenset[str] = OURS
) -> list[str]:
    """:param optional: members that Docker leaves out when they are empty, as Go's ``omitempty`` does."""
    schema = apidefinition.answer(method, path, code)
    found = apidefinition.differences(
        value, schema, ours=ours, left_out=frozenset(" ".join(optional).split())
    )
    return sorted(set(found) - NULL)


CONFIG = "ArgsEscaped ExposedPorts Healthcheck NetworkDisabled Shell StopSignal StopTimeout OnBuild"
HEALTH = "Retries StartInterval StartPeriod Timeout Interval"
MOUNT = (
    "Source Target ReadOnly Consistency BindOptions VolumeOptions TmpfsOptions ImageOptions ClusterOptions"
)
OPTIONS = (
    "BindOptions.Propagation BindOptions.NonRecursive BindOptions.CreateMountpoint "
    "BindOptions.ReadOnlyNonRecursive BindOptions.ReadOnlyForceRecursive VolumeOptions.NoCopy "
    "VolumeOptions.Labels VolumeOptions.DriverConfig VolumeOptions.Subpath VolumeOptions.DriverConfig.Name "
    "VolumeOptions.DriverConfig.Options TmpfsOptions.SizeBytes TmpfsOptions.Mode TmpfsOptions.Options"
)
DESCRIPTOR = (
    "annotations artifactType data urls platform platform.os.version platform.os.features platform.variant"
)
PLATFORM = "os.version os.features variant"


def under(path: str, names: str) -> str:
    return " ".join(f"{path}.{name}" for name in names.split())


INSPECT = (
    under("Config", CONFIG),
    under("Config.Healthcheck", HEALTH),
    under("HostConfig", "Annotations StorageOpt Tmpfs Sysctls Mounts Init Runtime"),
    under("HostConfig.Mounts.*", f"{MOUNT} {OPTIONS}"),
    under("Mounts.*", "Name Driver"),
    under("ImageManifestDescriptor", DESCRIPTOR),
    "GraphDriver State.Health SizeRw SizeRootFs NetworkSettings.Networks.*.IPAMConfig.IPv6Address",
    "NetworkSettings.Networks.*.IPAMConfig.IPv4Address NetworkSettings.Networks.*.IPAMConfig.LinkLocalIPs",
)


@contextmanager
def two(daemon: LabDaemon, name: str) -> Iterator[tuple[str, str]]:
    """A container that runs with much of everything, and one that was only made."""
    daemon.docker("network", "create", "--ipv6", name).ok()
    mounts = [
        *("-v", f"{name}:/v", "-v", "/tmp:/host:ro", "--mount", "type=tmpfs,dst=/t"),
        *("--mount", "type=bind,src=/tmp,dst=/b,readonly", "--mount", f"type=volume,src={name}b,dst=/w"),
    ]
    daemon.docker(
        *("run", "-d", "--name", f"{name}-a", "-p", "80", "--expose", "99", "--network", name, *mounts),
        *("--network-alias", "al", "--health-cmd", "true", "--health-interval", "100ms", "-e", "A=b"),
        *("--ulimit", "nofile=100", "--device", "/dev/null", "--label", "x=y", "--annotation", "p=q"),
        *("busybox", "sleep", "1000"),
    ).ok()
    daemon.docker("create", "--name", f"{name}-b", "--privileged", "--init", "busybox").ok()
    wait_until(lambda: daemon.state_of(f"{name}-a")["Health"]["Log"], "the first health check")
    yield f"{name}-a", f"{name}-b"
    daemon.docker("rm", "-f", f"{name}-a", f"{name}-b").ok()
    daemon.docker("network", "rm", name).ok()
    daemon.docker("volume", "rm", name, f"{name}b").ok()


def test_containers(daemon: LabDaemon, name: str) -> None:
    with two(daemon, name) as (first, second):
        for one in (first, second):
            shown = daemon.api("GET", f"/containers/{one}/json?size=1").json
            assert wrong(shown, "GET", "/containers/{id}/json", *INSPECT) == []
        listed = daemon.api("GET", "/containers/json?all=1&size=1").json
        assert len(listed) == 2
        assert wrong(
            listed, "GET", "/containers/json", "*.HostConfig.Annotations", under("*.Mounts.*", "Name Driver"),
            under("*.Ports.*", "IP PublicPort"), under("*.ImageManifestDescriptor", DESCRIPTOR),
        ) == []  # fmt: skip
        for path in ("top", "changes"):
            found = daemon.api("GET", f"/containers/{first}/{path}").json
            assert wrong(found, "GET", f"/containers/{{id}}/{path}") == []
        assert wrong(
            daemon.api("GET", f"/containers/{first}/stats?stream=0").json, "GET", "/containers/{id}/stats",
            under("memory_stats", "commitbytes commitpeakbytes privateworkingset max_usage failcnt"),
            under("networks.*", "endpoint_id instance_id"), "cpu_stats.cpu_usage.percpu_usage",
            under("storage_stats", "read_count_normalized read_size_bytes write_count_normalized write_size_bytes"),
        ) == []  # fmt: skip
        update = daemon.api("POST", f"/containers/{first}/update", {"CpuShares": 512}).json
        assert wrong(update, "POST", "/containers/{id}/update") == []
        made = daemon.api("POST", f"/containers/{first}/exec", {"Cmd": ["true"]})
        assert wrong(made.json, "POST", "/containers/{id}/exec", code=201) == []
        shown = daemon.api("GET", f"/exec/{made.json['Id']}/json").json
        assert wrong(shown, "GET", "/exec/{id}/json", "ProcessConfig.user") == []
        commit = daemon.api("POST", f"/commit?container={second}&repo={name}")
        assert wrong(commit.json, "POST", "/commit", code=201) == []
        removed = daemon.api("DELETE", f"/images/{name}").json
        assert removed and wrong(removed, "DELETE", "/images/{name}", "*.Deleted *.Untagged") == []


def test_what_is_null_and_what_is_left_out(daemon: LabDaemon, name: str) -> None:
    with two(daemon, name) as (first, second):
        shown = daemon.api("GET", f"/containers/{first}/json").json
        host, config = shown["HostConfig"], shown["Config"]
        by_target = {mount["Target"]: mount for mount in host["Mounts"]}
        assert by_target["/t"] == {"Type": "tmpfs", "Target": "/t"}
        assert by_target["/b"] == {"Type": "bind", "Source": "/tmp", "Target": "/b", "ReadOnly": True}
        assert by_target["/w"] == {"Type": "volume", "Source": f"{name}b", "Target": "/w"}
        assert host["PidsLimit"] is None and host["MemorySwappiness"] is None
        assert "/proc/kcore" in host["MaskedPaths"]
        assert "Init" not in host and "Tmpfs" not in host and "OnBuild" not in config
        assert config["Entrypoint"] is None and config["Cmd"] == ["sleep", "1000"]
        shown = daemon.api("GET", f"/containers/{second}/json").json
        assert shown["HostConfig"]["MaskedPaths"] is None and shown["HostConfig"]["ReadonlyPaths"] is None
        assert "Mounts" not in shown["HostConfig"] and shown["HostConfig"]["Init"] is True
        assert shown["ImageManifestDescriptor"]["platform"]["os"] == "linux"


def test_images(daemon: LabDaemon) -> None:
    listed = daemon.api("GET", "/images/json?manifests=1&shared-size=1").json
    manifests = (
        under("*.Manifests.*.Descriptor", DESCRIPTOR), under("*.Manifests.*.ImageData", "Identity UnpackedSize"),
        under("*.Manifests.*.ImageData.Platform", PLATFORM), under("*.Descriptor", DESCRIPTOR),
    )  # fmt: skip
    assert listed and wrong(listed, "GET", "/images/json", *manifests) == []
    shown = daemon.api("GET", "/images/busybox/json?manifests=1").json
    assert wrong(
        shown, "GET", "/images/{name}/json", *(text.replace("*.", "", 1).replace(" *.", " ") for text in manifests),
        under("Config", "ArgsEscaped ExposedPorts Healthcheck Shell StopSignal Volumes User Env Cmd WorkingDir"),
        under("Config", "Entrypoint OnBuild Labels"), "Comment Author OsVersion Variant Identity GraphDriver Created",
    ) == []  # fmt: skip
    history = daemon.api("GET", "/images/busybox/history").json
    assert history and wrong(history, "GET", "/images/{name}/history") == []


def test_volumes_and_networks(daemon: LabDaemon, name: str) -> None:
    made = daemon.api("POST", "/volumes/create", {"Name": name})
    optional = "ClusterVolume Status UsageData"
    assert wrong(made.json, "POST", "/volumes/create", optional, code=201) == []
    listed = daemon.api("GET", "/volumes").json
    assert listed["Volumes"] and wrong(listed, "GET", "/volumes", under("Volumes.*", optional)) == []
    more = frozenset({"Id", "Containers"})
    assert (
        wrong(daemon.api("GET", f"/volumes/{name}").json, "GET", "/volumes/{name}", optional, ours=more) == []
    )
    daemon.docker("volume", "rm", name).ok()
    subnet = {
        "Subnet": "10.213.7.0/24",
        "IPRange": "10.213.7.128/25",
        "AuxiliaryAddresses": {"a": "10.213.7.9"},
    }
    created = daemon.api("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [subnet]}})
    assert wrong(created.json, "POST", "/networks/create", code=201) == []
    ipam = "IPAM.Config.*.AuxiliaryAddresses IPAM.Config.*.IPRange IPAM.Config.*.Gateway"
    shown = daemon.api("GET", f"/networks/{name}").json
    assert wrong(shown, "GET", "/networks/{id}", ipam) == []
    assert shown["IPAM"]["Config"][0]["IPRange"] == "10.213.7.128/25"
    assert wrong(daemon.api("GET", "/networks").json, "GET", "/networks", under("*", ipam)) == []
    daemon.docker("network", "rm", name).ok()


def test_system(daemon: LabDaemon) -> None:
    info = daemon.api("GET", "/info").json
    assert wrong(
        info, "GET", "/info", "Containerd DefaultAddressPools NRI ProductLicense FirewallBackend.Info",
        under("Swarm", "Cluster Managers Nodes"), under("Runtimes.*", "runtimeArgs status"),
    ) == []  # fmt: skip
    assert wrong(daemon.api("GET", "/version").json, "GET", "/version", "Experimental") == []
    usages = ("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")
    short, full = (daemon.api("GET", f"/system/df{query}").json for query in ("", "?verbose=1"))
    for usage in usages:
        assert set(full[usage]) - set(short[usage]) == {"Items"}
    assert wrong(short, "GET", "/system/df", under("ImageUsage", "Items")) == []
    events = daemon.api("GET", "/events", since=1, until=f"{time.time():.6f}").lines
    assert events
    for event in events:
        assert wrong(event, "GET", "/events") == []


def test_prunes(daemon: LabDaemon) -> None:
    for kind in ("containers", "images", "networks", "volumes", "build"):
        path = f"/{kind}/prune"
        assert wrong(daemon.api("POST", path).json, "POST", path) == []
