"""``GET /containers/{id}/json``: a container with its whole configuration, in the form of each API version.

Members that Docker leaves out if they are empty are left out here, and those that it shows as null are null:
clients in other languages depend on both.
"""

from __future__ import annotations

from typing import Any

from wherry.model.base import to_builtins
from wherry.model.container import Container, EndpointRequest, Health, MountSpec
from wherry.model.oci import Healthcheck
from wherry.model.views import ContainerView, EndpointView
from wherry.wire.containers import endpoint, image_manifest, mount_point, port_map
from wherry.wire.times import rfc3339

_HOST_OPTIONAL = ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts", "Secrets", "Runtime")
"""Members that are left out if they are empty; ``Init`` is left out if the request did not set it."""
_CONFIG_OPTIONAL = (
    "ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "Shell",
)  # fmt: skip


def inspect(view: ContainerView, version: tuple[int, int]) -> dict[str, Any]:
    """The whole document."""
    record = view.record
    out: dict[str, Any] = {
        "Id": record.id,
        "Created": rfc3339(record.created),
        "Path": record.path,
        "Args": record.args,
        "State": state(view),
        "Image": record.image_id,
        "ResolvConfPath": f"{view.directory}/resolv.conf",
        "HostnamePath": f"{view.directory}/hostname",
        "HostsPath": f"{view.directory}/hosts",
        "LogPath": view.log_path,
        "Name": f"/{view.name}",
        "RestartCount": view.state.restart_count,
        "Driver": record.storage_driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(view.exec_ids) or None,
        "HostConfig": _host(view),
        "Mounts": [mount_point(m) for m in view.mounts],
        "Config": _config(record, version),
        "NetworkSettings": _network_settings(view, version),
    }
    if version >= (1, 52):
        out["Storage"] = {"RootFS": {"Snapshot": {"Name": record.storage_driver}}}
    else:
        out["GraphDriver"] = {"Name": record.storage_driver, "Data": None}
    if version >= (1, 48) and record.image_manifest is not None:
        out["ImageManifestDescriptor"] = image_manifest(record)
    if view.size_rw is not None:
        out |= {"SizeRw": view.size_rw, "SizeRootFs": view.size_root_fs}
    return out


def state(view: ContainerView) -> dict[str, Any]:
    value = view.state
    out: dict[str, Any] = {
        "Status": value.status,
        "Running": value.status in ("running", "paused", "restarting"),
        "Paused": value.status == "paused",
        "Restarting": value.status == "restarting",
        "OOMKilled": value.oom_killed,
        "Dead": value.status == "dead",
        "Pid": value.pid,
        "ExitCode": value.exit_code,
        "Error": value.error,
        "StartedAt": rfc3339(value.started_at),
        "FinishedAt": rfc3339(value.finished_at),
    }
    if value.health is not None:
        out["Health"] = _health(value.health, view.record.config.healthcheck)
    return out


def _health(value: Health, check: Healthcheck | None) -> dict[str, Any]:
    out: dict[str, Any] = {
        "Status": value.status,
        "FailingStreak": value.failing_streak,
        "Log": [
            {
                "Start": rfc3339(entry.start),
                "End": rfc3339(entry.end),
                "ExitCode": entry.exit_code,
                "Output": entry.output,
            }
            for entry in value.log
        ],
    }
    if check is not None and check.on_failure == "restart":
        out["OnFailureRestarts"] = value.restarts
    return out


def _host(view: ContainerView) -> dict[str, Any]:
    record = view.record
    out: dict[str, Any] = to_builtins(record.host_config)
    for name in _HOST_OPTIONAL:
        if not out.get(name):
            out.pop(name, None)
    if out.get("Init") is None:
        out.pop("Init", None)
    if "Mounts" in out:
        out["Mounts"] = [mount_spec(spec) for spec in record.host_config.mounts or ()]
    out["Links"] = view.links
    out["LogConfig"] = {
        "Type": view.log_driver or record.host_config.log_config.type,
        "Config": record.host_config.log_config.config or {},
    }
    out["PortBindings"] = out.get("PortBindings") or {}
    return out


def mount_spec(spec: MountSpec) -> dict[str, Any]:
    """API ``Mount``: empty members are left out; the options of a mount's type are present if the request set
    any."""
    out = {name: value for name, value in to_builtins(spec).items() if value}
    for name in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
        if name in out:
            out[name] = {key: value for key, value in out[name].items() if value}
    driver = out.get("VolumeOptions", {}).get("DriverConfig")
    if driver is not None:
        out["VolumeOptions"]["DriverConfig"] = {key: value for key, value in driver.items() if value}
    return out


def _config(record: Container, version: tuple[int, int]) -> dict[str, Any]:
    out: dict[str, Any] = to_builtins(record.config)
    for name in _CONFIG_OPTIONAL:
        if not out.get(name):
            out.pop(name, None)
    if out.get("StopTimeout") is None:
        out.pop("StopTimeout", None)
    out["Env"] = out.get("Env") or []
    out["Labels"] = out.get("Labels") or {}
    for name in ("Cmd", "Entrypoint"):
        text = out.get(name)
        out[name] = [text] if isinstance(text, str) else text
    out.pop("OnBuild", None)
    out.pop("MacAddress", None)
    if version < (1, 52):
        out["OnBuild"] = None
        address = _wanted_mac(record)
        if address:
            out["MacAddress"] = address
    return out


def _wanted_mac(record: Container) -> str:
    """The MAC address that the request wanted on the container's main network."""
    first: EndpointRequest = next(iter(record.networks.values()), EndpointRequest())
    return first.mac_address or record.config.mac_address


def _network_settings(view: ContainerView, version: tuple[int, int]) -> dict[str, Any]:
    networks = {e.network_name: endpoint(e) for e in view.endpoints}
    if version < (1, 45):
        for name, shown in networks.items():
            if name not in ("bridge", "host", "none"):
                names = (*(shown["Aliases"] or ()), view.record.id[:12], view.record.config.hostname)
                shown["Aliases"] = list(dict.fromkeys(names))
    out: dict[str, Any] = {
        "SandboxID": view.record.id if view.sandbox_key else "",
        "SandboxKey": view.sandbox_key,
        "Ports": port_map(view.ports),
        "Networks": networks,
    }
    if version < (1, 52):
        out |= _flat_bridge(view)
    return out


def _flat_bridge(view: ContainerView) -> dict[str, Any]:
    """The endpoint on the default bridge again, for clients before 1.52."""
    nothing = EndpointView("", "")
    first = next((e for e in view.endpoints if e.network_name == "bridge"), nothing)
    return {
        "Bridge": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.endpoint_id,
        "Gateway": first.gateway,
        "GlobalIPv6Address": first.ip6_address,
        "GlobalIPv6PrefixLen": first.prefix_length6,
        "IPAddress": first.ip_address,
        "IPPrefixLen": first.prefix_length,
        "IPv6Gateway": first.gateway6,
        "MacAddress": first.mac_address,
    }
