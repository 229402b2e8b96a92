"""Containers as the Engine API shows them: the list's summary and the inspect document."""

from __future__ import annotations

import time
from typing import Any

from wherry.model.base import to_builtins
from wherry.model.container import ContainerState, EndpointRequest, Health, MountPoint
from wherry.model.oci import Healthcheck
from wherry.model.views import ContainerView, EndpointView, ExecListing, ExecView, PortView
from wherry.wire.times import human_duration, rfc3339


def status_text(state: ContainerState, now: int | None = None) -> str:
    """The STATUS column: ``Up 3 minutes``, ``Exited (0) 2 hours ago`` …"""
    now = time.time_ns() if now is None else now
    if state.status in ("running", "paused"):
        up = f"Up {human_duration(now - state.started_at)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        if state.health is not None:
            word = state.health.status
            return f"{up} (health: starting)" if word == "starting" else f"{up} ({word})"
        return up
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
    if state.status == "created":
        return "Created"
    if state.status == "dead":
        return "Dead"
    if state.status == "removing":
        return "Removal In Progress"
    if not state.finished_at:
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def summary(view: ContainerView) -> dict[str, Any]:
    """One element of ``GET /containers/json``."""
    record, state = view.record, view.state
    out: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{view.name}", *(f"/{name}" for name in view.link_names)],
        "Image": view.image_name,
        "ImageID": record.image_id,
        "Command": " ".join([record.path, *record.args]),
        "Created": record.created // 10**9,
        "Ports": port_list(view.ports),
        "Labels": record.config.labels or {},
        "State": state.status,
        "Status": status_text(state),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "Health": {
            "Status": state.health.status if state.health is not None else "none",
            "FailingStreak": state.health.failing_streak if state.health is not None else 0,
        },
        "NetworkSettings": {"Networks": {e.network_name: endpoint(e) for e in view.endpoints}},
        "Mounts": [mount_point(m) for m in view.mounts],
    }
    if record.host_config.annotations:
        out["HostConfig"]["Annotations"] = record.host_config.annotations
    if view.size_rw is not None:
        out["SizeRw"] = view.size_rw
        out["SizeRootFs"] = view.size_root_fs
    return out


def port_list(ports: tuple[PortView, ...]) -> list[dict[str, Any]]:
    out = []
    for port in ports:
        item: dict[str, Any] = {"PrivatePort": port.container_port, "Type": port.protocol}
        if port.host_port is not None:
            item = {"IP": port.host_ip, **item, "PublicPort": port.host_port}
        out.append(item)
    return out


def port_map(ports: tuple[PortView, ...]) -> dict[str, list[dict[str, str]] | None]:
    """``{"80/tcp": [{"HostIp": …, "HostPort": …}]}``; ``null`` for a port only exposed."""
    out: dict[str, list[dict[str, str]] | None] = {}
    for port in ports:
        key = f"{port.container_port}/{port.protocol}"
        if port.host_port is None:
            out.setdefault(key, None)
            continue
        bindings = out.get(key) or []
        bindings.append({"HostIp": port.host_ip, "HostPort": str(port.host_port)})
        out[key] = bindings
    return out


def mount_point(point: MountPoint) -> dict[str, Any]:
    out: dict[str, Any] = {"Type": point.type}
    if point.type == "volume":
        out |= {"Name": point.name, "Source": point.source}
    else:
        out["Source"] = point.source
    out["Destination"] = point.destination
    if point.driver:
        out["Driver"] = point.driver
    return {**out, "Mode": point.mode, "RW": point.rw, "Propagation": point.propagation}


def endpoint(view: EndpointView) -> dict[str, Any]:
    request: EndpointRequest = view.request
    return {
        "IPAMConfig": to_builtins(request.ipam_config) if request.ipam_config else None,
        "Links": request.links,
        "Aliases": request.aliases,
        "DriverOpts": request.driver_opts,
        "GwPriority": request.gw_priority,
        "NetworkID": view.network_id,
        "EndpointID": view.endpoint_id,
        "Gateway": view.gateway,
        "IPAddress": view.ip_address,
        "MacAddress": view.mac_address,
        "IPPrefixLen": view.prefix_length,
        "IPv6Gateway": view.gateway6,
        "GlobalIPv6Address": view.ip6_address,
        "GlobalIPv6PrefixLen": view.prefix_length6,
        "DNSNames": list(view.dns_names) or None,
    }


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


def inspect(view: ContainerView, version: tuple[int, int]) -> dict[str, Any]:
    """``GET /containers/{id}/json``."""
    record = view.record
    host = to_builtins(record.host_config)
    config = to_builtins(record.config)
    if not record.config.network_disabled:
        config.pop("NetworkDisabled", None)
    for optional in ("StopTimeout", "Shell", "Healthcheck", "StopSignal", "MacAddress", "ArgsEscaped"):
        if not config.get(optional):
            config.pop(optional, None)
    config["Env"] = config.get("Env") or []
    config["Labels"] = config.get("Labels") or {}
    config["OnBuild"] = None
    if not config.get("ExposedPorts"):
        config.pop("ExposedPorts", None)
    host["Links"] = view.links
    if view.log_driver:
        host["LogConfig"]["Type"] = view.log_driver
    host["PortBindings"] = host.get("PortBindings") or {}
    for mount in host.get("Mounts") or ():
        if not mount["Owner"]:
            del mount["Owner"]
    if not host.get("Mounts"):
        host.pop("Mounts", None)
    if host.get("Init") is None:
        host.pop("Init", None)
    if not host.get("Secrets"):
        host.pop("Secrets", None)
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
        "HostConfig": host,
        "Storage": {"RootFS": {"Snapshot": {"Name": record.storage_driver}}},
        "Mounts": [mount_point(m) for m in view.mounts],
        "Config": config,
        "NetworkSettings": _network_settings(view, version),
    }
    if view.size_rw is not None:
        out |= {"SizeRw": view.size_rw, "SizeRootFs": view.size_root_fs}
    return out


def _network_settings(view: ContainerView, version: tuple[int, int]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "SandboxID": view.record.id if view.sandbox_key else "",
        "SandboxKey": view.sandbox_key,
        "Ports": port_map(view.ports),
        "Networks": {e.network_name: endpoint(e) for e in view.endpoints},
    }
    if version < (1, 52):
        # The default bridge's endpoint once more, flat, as clients before 1.52 read it.
        first = next((e for e in view.endpoints if e.network_name == "bridge"), None)
        out |= {
            "Bridge": "",
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.endpoint_id if first else "",
            "Gateway": first.gateway if first else "",
            "GlobalIPv6Address": first.ip6_address if first else "",
            "GlobalIPv6PrefixLen": first.prefix_length6 if first else 0,
            "IPAddress": first.ip_address if first else "",
            "IPPrefixLen": first.prefix_length if first else 0,
            "IPv6Gateway": first.gateway6 if first else "",
            "MacAddress": first.mac_address if first else "",
        }
    return out


def exec_listing(entry: ExecListing) -> dict[str, Any]:
    """One element of ``GET /containers/{id}/execs`` (wherry's own)."""
    view = entry.view
    return {
        "ID": view.id,
        "ContainerID": view.container_id,
        "Pid": view.pid,
        "Command": [view.entrypoint, *view.arguments],
        "User": entry.user,
        "Tty": view.tty,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "StartedAt": rfc3339(entry.started_at),
        "Processes": entry.processes,
    }


def exec_inspect(view: ExecView) -> dict[str, Any]:
    """``GET /exec/{id}/json``."""
    return {
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": view.tty,
            "entrypoint": view.entrypoint,
            "arguments": list(view.arguments),
            "privileged": view.privileged,
            "user": view.user,
        },
        "OpenStdin": view.open_stdin,
        "OpenStderr": view.open_stderr,
        "OpenStdout": view.open_stdout,
        "CanRemove": view.can_remove,
        "ContainerID": view.container_id,
        "DetachKeys": view.detach_keys,
        "Pid": view.pid,
    }
