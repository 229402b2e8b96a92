"""``/_ping``, ``/version``, ``/info``, ``/events``, ``/system/df``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from wherry.api.context import Context, json_response
from wherry.api.progress import Reporter, registry_credentials, with_progress
from wherry.api.router import API_VERSION, MIN_VERSION, Route, version_text
from wherry.api.routes.volumes import encode as encode_volume
from wherry.api.server import JsonStream
from wherry.engine.builds.cache import Usage
from wherry.engine.listing import ListOptions
from wherry.errors import InvalidArgument
from wherry.model.base import to_builtins
from wherry.wire import builds as wire_builds
from wherry.wire import containers as wire_containers
from wherry.wire import filters as wire_filters
from wherry.wire import images as wire_images
from wherry.wire import system as wire
from wherry.wire.times import parse_timestamp, rfc3339

EVENT_FILTERS = frozenset(
    {
        "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
        "secret", "service", "type", "volume",
    }
)  # fmt: skip


async def ping(ctx: Context) -> web.Response:
    headers = {
        "Builder-Version": "1",
        "Swarm": "inactive",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    body = b"" if ctx.request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=headers, content_type="text/plain")


async def version(ctx: Context) -> web.Response:
    value = ctx.services.system.version()
    components: list[dict[str, Any]] = [
        {
            "Name": "Engine",
            "Version": value.version,
            "Details": {
                "ApiVersion": version_text(API_VERSION),
                "Arch": value.arch,
                "MinAPIVersion": version_text(MIN_VERSION),
                "Os": value.os,
                "KernelVersion": value.kernel,
                "PythonVersion": value.python,
            },
        }
    ]
    components += [{"Name": c.name, "Version": c.version, "Details": {}} for c in value.components]
    return json_response(
        {
            "Platform": {"Name": "wherry"},
            "Components": components,
            "Version": value.version,
            "ApiVersion": version_text(API_VERSION),
            "MinAPIVersion": version_text(MIN_VERSION),
            "GitCommit": "",
            "GoVersion": "",
            "Os": value.os,
            "Arch": value.arch,
            "KernelVersion": value.kernel,
            "BuildTime": "",
        }
    )


async def info(ctx: Context) -> web.Response:
    i = await asyncio.to_thread(ctx.services.system.info)
    has = i.controllers.__contains__
    v1 = i.cgroup_version == 1
    security = ["name=seccomp,profile=builtin", *([] if v1 else ["name=cgroupns"])]
    return json_response(
        {
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
                "Volume": ctx.services.volumes.drivers(),
                "Network": ctx.services.networks.drivers(),
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
            "NEventsListener": ctx.services.events.listeners,
            "KernelVersion": i.kernel,
            "OperatingSystem": i.operating_system,
            "OSVersion": i.os_version,
            "OSType": "linux",
            "Architecture": i.machine,
            "NCPU": i.cpus,
            "MemTotal": i.memory,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
                "IndexConfigs": {},
                "Mirrors": [],
            },
            "GenericResources": None,
            "HttpProxy": i.http_proxy,
            "HttpsProxy": i.https_proxy,
            "NoProxy": i.no_proxy,
            "DockerRootDir": i.root,
            "Name": i.name,
            "Labels": list(i.labels),
            "ExperimentalBuild": False,
            "ServerVersion": ctx.services.system.version_text,
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
            "CDISpecDirs": list(i.cdi_directories),
            "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in i.cdi_devices],
            "Warnings": list(i.warnings) or None,
        }
    )


async def events(ctx: Context) -> web.StreamResponse:
    """Past events from ``since``, then live ones up to ``until`` (or for as long as the client stays)."""
    filters = wire_filters.parse(ctx.text("filters"), EVENT_FILTERS)
    since, until = parse_timestamp(ctx.text("since")), parse_timestamp(ctx.text("until"))
    if since is not None and until is not None and since > until:
        raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
    bus = ctx.services.events
    async with bus.subscribe() as live:
        stream = await JsonStream.begin(ctx.request)
        last = 0
        if since is not None or until is not None:
            for value in bus.past(since, until):
                last = value.time
                if wire.event_matches(value, filters):
                    await stream.send(wire.event(value, ctx.version))
        async for value in live.until(until):
            if value.time > last and wire.event_matches(value, filters):
                await stream.send(wire.event(value, ctx.version))
        return stream.response


async def disk_usage(ctx: Context) -> web.Response:
    kinds = set(ctx.query.getall("type", [])) or {"container", "image", "volume", "build-cache"}
    unknown = kinds - {"container", "image", "volume", "build-cache"}
    if unknown:
        raise InvalidArgument(f"unknown object type: {min(unknown)}")
    out: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    if "image" in kinds:
        found = await ctx.services.images.select({}, shared_size=True)
        items = [wire_images.summary(image, count, with_manifests=False) for image, count in found]
        layers = await ctx.services.images.disk_usage()
        out |= {"LayersSize": layers, "Images": items}
        unused = sum(image.size - max(image.shared_size, 0) for image, count in found if not count)
        active = sum(1 for _image, count in found if count)
        usage["ImageUsage"] = _usage(items, active, layers, min(unused, layers))
    if "container" in kinds:
        views = await asyncio.to_thread(ctx.services.listing.select, ListOptions(all=True, size=True))
        items = [wire_containers.summary(view) for view in views]
        stopped = sum(v.size_rw or 0 for v in views if v.state.status not in ("running", "paused"))
        out["Containers"] = items
        running = sum(1 for v in views if v.state.status in ("running", "paused", "restarting"))
        usage["ContainerUsage"] = _usage(items, running, sum(v.size_rw or 0 for v in views), stopped)
    if "volume" in kinds:
        items, active, total, free = [], 0, 0, 0
        for volume in ctx.services.volumes.select({}):
            size = await ctx.services.volumes.usage(volume)
            references = ctx.services.volumes.references(volume)
            items.append({**encode_volume(volume), "UsageData": {"Size": size, "RefCount": references}})
            active += bool(references)
            total += max(0, size)
            free += 0 if references else max(0, size)
        out["Volumes"] = items
        usage["VolumeUsage"] = _usage(items, active, total, free)
    if "build-cache" in kinds:
        found_cache = await asyncio.to_thread(ctx.services.builds.cache.usage)
        items = [_cache_record(one) for one in found_cache]
        out["BuildCache"] = items
        own = [one for one in found_cache if not one.shared]
        usage["BuildCacheUsage"] = _usage(
            items,
            sum(one.in_use for one in found_cache),
            sum(one.row.size for one in own),
            sum(one.row.size for one in own if not one.in_use),
        )
    return json_response(usage if ctx.version >= (1, 53) else out)


def _cache_record(one: Usage) -> dict[str, Any]:
    row = one.row
    return wire_builds.cache_record(
        identifier=row.id,
        parent=row.parent,
        kind=row.kind,
        description=row.description,
        in_use=one.in_use,
        shared=one.shared,
        size=row.size,
        created=row.created,
        used=row.used,
        uses=row.uses,
    )


def _usage(items: list[dict[str, Any]], active: int, total: int, free: int) -> dict[str, Any]:
    return {
        "ActiveCount": active,
        "TotalCount": len(items),
        "TotalSize": total,
        "Reclaimable": free,
        "Items": items,
    }


async def on_disk(ctx: Context) -> web.Response:
    """An addition: what the disk gives for each kind of thing; the sum is everything below the root."""
    parts = await ctx.services.disk.usage()
    listed = [{"What": part.what, "Size": part.size} for part in parts]
    return json_response({"Parts": listed, "Total": sum(part.size for part in parts)})


async def fsck(ctx: Context) -> web.StreamResponse:
    """An addition: check the store, and mend it with ``repair``; a line for each finding, one at the end."""
    credentials = registry_credentials(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        found = await ctx.services.fsck.check(
            repair=ctx.flag("repair"),
            credentials=credentials,
            tell=lambda one: progress.on_loop({"Finding": to_builtins(one)}),
        )
        return [{"Found": len(found), "Failed": sum(one.failed for one in found)}]

    return await with_progress(ctx, work, quiet=False)


ROUTES: list[Route] = [
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", events),
    ("GET", "/system/df", disk_usage),
    ("GET", "/system/disk", on_disk),
    ("POST", "/system/fsck", fsck),
]
