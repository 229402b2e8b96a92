"""Compare running containers with the file, in the terms of the Engine API."""

from __future__ import annotations

from wherry.client import containers, images
from wherry.compose import labels
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.converge import Converger
    from wherry.compose.state import ProjectContainer

    Object = dict[str, Any]
    Difference = tuple[str, str, str]
    """A difference: its subject, the actual value, the value in the file."""

_CONFIG = ("User", "WorkingDir", "Hostname", "Domainname", "Tty", "OpenStdin", "StopSignal", "StopTimeout")
_COMMANDS = ("Cmd", "Entrypoint")
_HOST = (
    *(
        "Memory",
        "MemorySwap",
        "MemoryReservation",
        "NanoCpus",
        "CpuShares",
        "CpuPeriod",
        "CpuQuota",
        "CpusetCpus",
    ),
    *(
        "PidsLimit",
        "Privileged",
        "ReadonlyRootfs",
        "Init",
        "CapAdd",
        "CapDrop",
        "SecurityOpt",
        "Sysctls",
        "Tmpfs",
    ),
    *("ExtraHosts", "Dns", "DnsSearch", "ShmSize", "OomScoreAdj", "GroupAdd"),
)
_EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {})


def of_service(api: Api, converger: Converger, name: str) -> Iterator[tuple[str, list[Difference]]]:
    """The differences of each container of a service from the file; also missing and surplus containers."""
    wanted = converger.project.replicas(name)
    existing = sorted(converger.containers.get(name, ()), key=lambda one: one.number)
    for number in range(len(existing) + 1, wanted + 1):
        yield converger.container_name(name, number), [("container", "missing", "there")]
    for container in existing[wanted:]:
        yield container.name, [("container", "there", "gone")]
    for container in existing[:wanted]:
        found = list(_differences(api, converger, name, container))
        if found:
            yield container.name, found


def _differences(
    api: Api, converger: Converger, name: str, container: ProjectContainer
) -> Iterator[Difference]:
    about = containers.inspect(api, container.id)
    body = converger.body(name, converger.service(name), container.number, container.name)
    config, host = about.get("Config") or {}, about.get("HostConfig") or {}
    if container.state != "running":
        yield "state", container.state, "running"
    if config.get("Image") != body["Image"]:
        yield "Image", str(config.get("Image")), str(body["Image"])
    elif converger.images.get(name) and about.get("Image") != converger.images[name]:
        yield "Image", str(about.get("Image")), converger.images[name]
    for key in _COMMANDS:
        if body[key] is not None and list(config.get(key) or ()) != list(body[key]):
            yield key, _shown(config.get(key)), _shown(body[key])
    for key in _CONFIG:
        if body.get(key) not in _EMPTY and config.get(key) != body[key]:
            yield key, _shown(config.get(key)), _shown(body[key])
    yield from _environment(config, body, _image_environment(api, about))
    yield from _labels(config.get("Labels") or {}, body["Labels"])
    for key in _HOST:
        one, other = host.get(key), body["HostConfig"].get(key)
        if one != other and not (one in _EMPTY and other in _EMPTY) and not _is_default(key, one, other):
            yield key, _shown(one), _shown(other)
    yield from _others(about, host, body)


def _is_default(key: str, one: Any, other: Any) -> bool:
    """Whether a value is only the daemon's default."""
    return other in _EMPTY and key in ("ShmSize", "MemorySwap", "CapAdd", "CapDrop") and one not in _EMPTY


def _image_environment(api: Api, about: Object) -> set[str]:
    try:
        image = images.inspect(api, str(about.get("Image")))
    except NotFound:
        return set()
    return set((image.get("Config") or {}).get("Env") or ())


def _environment(config: Object, body: Object, from_image: set[str]) -> Iterator[Difference]:
    now = dict(text.partition("=")[::2] for text in config.get("Env") or () if text not in from_image)
    wanted = dict(text.partition("=")[::2] for text in body["Env"])
    known = {text.partition("=")[0] for text in from_image} | {"PATH"}
    for name in sorted(now.keys() | wanted.keys()):
        if now.get(name) == wanted.get(name) or (name not in wanted and name in known):
            continue
        if name in known and name not in now and f"{name}={wanted[name]}" in from_image:
            continue
        yield f"Env {name}", _shown(now.get(name)), _shown(wanted.get(name))


def _labels(now: Object, wanted: Object) -> Iterator[Difference]:
    for name in sorted(wanted):
        if not name.startswith(labels.PREFIX) and now.get(name) != wanted[name]:
            yield f"Label {name}", _shown(now.get(name)), _shown(wanted[name])


def _others(about: Object, host: Object, body: Object) -> Iterator[Difference]:
    """Ports, mounts, networks and the restart policy: sets of their parts."""
    now, wanted = host.get("RestartPolicy") or {}, body["HostConfig"]["RestartPolicy"]
    if (now.get("Name") or "no", now.get("MaximumRetryCount") or 0) != (
        wanted["Name"] or "no",
        wanted["MaximumRetryCount"],
    ):
        yield "RestartPolicy", _shown(now.get("Name")), _shown(wanted["Name"])
    yield from _sets("Port", _ports(host.get("PortBindings")), _ports(body["HostConfig"]["PortBindings"]))
    yield from _sets("Bind", set(host.get("Binds") or ()), set(body["HostConfig"]["Binds"] or ()))
    attached = set((about.get("NetworkSettings") or {}).get("Networks") or ())
    if body["NetworkingConfig"]["EndpointsConfig"]:
        yield from _sets("Network", attached, set(body["NetworkingConfig"]["EndpointsConfig"]))


def _ports(bindings: Object | None) -> set[str]:
    return {
        f"{one.get('HostIp') or ''}:{one.get('HostPort') or ''}->{port}"
        for port, some in (bindings or {}).items()
        for one in some or ()
    }


def _sets(what: str, now: set[str], wanted: set[str]) -> Iterator[Difference]:
    for one in sorted(now - wanted):
        yield f"{what} {one}", "there", "gone"
    for one in sorted(wanted - now):
        yield f"{what} {one}", "missing", "there"


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return " ".join(str(one) for one in value) or "empty"
    return str(value)
