"""``GET /info``: the daemon and its host, in the form of each API version."""

from __future__ import annotations

from typing import Any

from wherry.api.context import RequestContext
from wherry.engine.upkeep.system import SystemInfo
from wherry.model.reference import DEFAULT_DOMAIN as HUB
from wherry.wire.times import rfc3339


def document(i: SystemInfo, ctx: RequestContext) -> dict[str, Any]:
    has = i.controllers.__contains__
    v1 = i.cgroup_version == 1
    security = [f"name=seccomp,profile={i.seccomp_profile}", *([] if v1 else ["name=cgroupns"])]
    security += ["name=no-new-privileges"] if i.no_new_privileges else []
    out: dict[str, Any] = {
        "ID": i.id,
        "Containers": i.containers,
        "ContainersRunning": i.running,
        "ContainersPaused": i.paused,
        "ContainersStopped": i.stopped,
        "Images": i.images,
        "Driver": i.driver,
        "DriverStatus": [
            ["driver-type", "io.containerd.snapshotter.v1"],
            ["Backing Filesystem", i.backing_file_system],
        ],
        "Plugins": {
            "Volume": ctx.engine.volumes.service.drivers(),
            "Network": ctx.engine.networks.drivers(),
            "Authorization": None,
            "Log": list(i.log_drivers),
        },
        "MemoryLimit": has("memory"),
        "SwapLimit": i.swap_limit,
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "IPv4Forwarding": i.ip_forward,
        "Debug": i.debug,
        "NFd": i.file_descriptors,
        "OomKillDisable": v1 and has("memory"),
        "NGoroutines": i.threads,
        "SystemTime": rfc3339(i.time_ns),
        "LoggingDriver": i.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(i.cgroup_version),
        "NEventsListener": ctx.engine.events.listeners,
        "KernelVersion": i.kernel,
        "OperatingSystem": i.operating_system,
        "OSVersion": i.os_version,
        "OSType": "linux",
        "Architecture": i.machine,
        "NCPU": i.cpus,
        "MemTotal": i.memory,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(i),
        "GenericResources": None,
        "HttpProxy": i.http_proxy,
        "HttpsProxy": i.https_proxy,
        "NoProxy": i.no_proxy,
        "DockerRootDir": i.root,
        "Name": i.name,
        "Labels": list(i.labels),
        "ExperimentalBuild": False,
        "ServerVersion": ctx.engine.upkeep.system.version_text,
        "Runtimes": {name: {"path": name} for name in i.runtimes},
        "DefaultRuntime": i.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": i.init_program,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": security,
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": list(i.cdi_directories),
        "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in i.cdi_devices],
        "Warnings": list(i.warnings) or None,
    }
    _for_version(out, ctx.version)
    return out


def _for_version(out: dict[str, Any], version: tuple[int, int]) -> None:
    """Remove the members that later versions added; add those that later versions dropped."""
    if version < (1, 47):
        out["RegistryConfig"] |= {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
        }
    if version < (1, 49):
        del out["FirewallBackend"]
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            out[name] = {**out[name], "Expected": out[name]["ID"]}
    if version < (1, 50):
        del out["DiscoveredDevices"]
        out |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}


def _registries(i: SystemInfo) -> dict[str, Any]:
    """API ``RegistryServiceConfig``: Docker Hub, its mirrors, and every registry that is used without TLS or
    without verifying it."""
    mirrors = [url if url.endswith("/") else f"{url}/" for url in i.hub_mirrors]
    indexes = {HUB: {"Name": HUB, "Mirrors": mirrors, "Secure": True, "Official": True}}
    for host in (one for one in i.insecure_registries if not _is_network(one)):
        indexes[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
    networks = {one for one in i.insecure_registries if _is_network(one)} | {"127.0.0.0/8", "::1/128"}
    return {"InsecureRegistryCIDRs": sorted(networks), "IndexConfigs": indexes, "Mirrors": mirrors or None}


def _is_network(entry: str) -> bool:
    """Whether it is a network such as ``10.0.0.0/8``, and not a host or the beginning of a
    repository's name."""
    address, slash, bits = entry.rpartition("/")
    return bool(slash) and bits.isdigit() and all(c in "0123456789abcdefABCDEF.:" for c in address)
