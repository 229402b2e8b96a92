"""Containers as the Engine API shows them: the list, and what it shares with the inspect document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from wherry.model.base import to_builtins
from wherry.model.container import Container, ContainerState, EndpointRequest, MountPoint
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


def summary(view: ContainerView, version: tuple[int, int]) -> dict[str, Any]:
    """One element of ``GET /containers/json``."""
    record, state = view.record, view.state
    out: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{view.name}", *(f"/{name}" for name in view.link_names)],
        "Image": view.image_name,
        "ImageID": record.image_id,
        "Command": command(record.path, record.args),
        "Created": record.created // 10**9,
        "Ports": port_list(view.ports),
        "Labels": record.config.labels or {},
        "State": state.status,
        "Status": status_text(state),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": {e.network_name: endpoint(e) for e in view.endpoints}},
        "Mounts": [mount_point(m) for m in view.mounts],
    }
    if version >= (1, 46) and record.host_config.annotations:
        out["HostConfig"]["Annotations"] = record.host_config.annotations
    if version >= (1, 48) and record.image_manifest is not None:
        out["ImageManifestDescriptor"] = image_manifest(record)
    if version >= (1, 52):
        out["Health"] = {
            "Status": state.health.status if state.health is not None else "none",
            "FailingStreak": state.health.failing_streak if state.health is not None else 0,
        }
    if view.size_rw is not None:
        out["SizeRw"] = view.size_rw
        out["SizeRootFs"] = view.size_root_fs
    return out


def command(path: str, arguments: Sequence[str]) -> str:
    """The command in one line; arguments with a space are in quotes, as Docker shows them."""
    return " ".join([path, *(f"'{one}'" if " " in one else one for one in arguments)])


def port_list(ports: tuple[PortView, ...]) -> list[dict[str, Any]]:
    out = []
    for port in ports:
        item: dict[str, Any] = {"PrivatePort": port.container_port, "Type": port.protocol}
        if port.host_port is not None:
            item = {"IP": port.host_ip, **item, "PublicPort": port.host_port}
        out.append(item)
    return out


def port_map(ports: tuple[PortView, ...]) -> dict[str, list[dict[str, str]] | None]:
    """``{"80/tcp": [{"HostIp": …, "HostPort": …}]}``; ``null`` for a port that is exposed
    but not published."""
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


def image_manifest(record: Container) -> dict[str, Any]:
    """``ImageManifestDescriptor``: the manifest of the platform that the container was made for."""
    out: dict[str, Any] = to_builtins(record.image_manifest)
    os_name, _, rest = record.platform.partition("/")
    architecture, _, variant = rest.partition("/")
    shown = {"architecture": architecture, "os": os_name, **({"variant": variant} if variant else {})}
    return {**out, "platform": out.get("platform") or shown}


def endpoint(view: EndpointView) -> dict[str, Any]:
    request: EndpointRequest = view.request
    address = to_builtins(request.ipam_config) if request.ipam_config else None
    return {
        "IPAMConfig": None if address is None else {name: value for name, value in address.items() if value},
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
            **({"user": view.user} if view.user else {}),
        },
        "OpenStdin": view.open_stdin,
        "OpenStderr": view.open_stderr,
        "OpenStdout": view.open_stdout,
        "CanRemove": view.can_remove,
        "ContainerID": view.container_id,
        "DetachKeys": view.detach_keys,
        "Pid": view.pid,
    }
