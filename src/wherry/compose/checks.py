"""Check that the parts of a project fit together; errors name the service and a correct value."""

from __future__ import annotations

from wherry.compose.places import FileError, Map, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.compose.project import Project

INVALID = "invalid compose project"
_DEPLOYED = (
    ("mem_limit", "limits", "memory"),
    ("mem_reservation", "reservations", "memory"),
    ("cpus", "limits", "cpus"),
    ("pids_limit", "limits", "pids"),
)


def check(project: Project) -> None:
    """:raises FileError: a service refers to something that does not exist, or contradicts itself."""
    for name, service in project.services.items():
        _makeable(project, name, service)
        _references(project, name, service)
        _contradictions(name, service)
        _devices(name, service)
        _mounts(name, service)
        _build(project, name, service)
    _container_names(project)
    project.levels(project.services)
    for section in ("configs", "secrets"):
        for key, one in getattr(project, section).items():
            _file(section, key, one)


def _wrong(place: Place, text: str) -> FileError:
    return FileError(place, "", f"{text}: {INVALID}")


def _makeable(project: Project, name: str, service: Map) -> None:
    if not any(service.get(key) for key in ("image", "build", "provider")):
        raise _wrong(service.at, f'service "{name}" has neither an image nor a build context specified')


def _references(project: Project, name: str, service: Map) -> None:
    for network in service.get("networks") or {}:
        if network not in project.networks:
            at = service["networks"].place(network)
            raise _wrong(at, f'service "{name}" refers to undefined network {network}')
    for volume in service.get("volumes") or ():
        source = volume.get("source")
        if volume["type"] == "volume" and source and source not in project.volumes:
            raise _wrong(volume.at, f'service "{name}" refers to undefined volume {source}')
    for section, word in (("configs", "config"), ("secrets", "secret")):
        for one in service.get(section) or ():
            if one["source"] not in getattr(project, section):
                raise _wrong(one.at, f'service "{name}" refers to undefined {word} {one["source"]}')
    for model in service.get("models") or {}:
        if model not in project.models:
            raise _wrong(
                service["models"].place(model), f'service "{name}" refers to undefined model {model}'
            )
    for other, how in (service.get("depends_on") or {}).items():
        if other not in project.services and (how["required"] or other not in project.all_services):
            place = service["depends_on"].place(other)
            if other in project.disabled and how["required"]:
                raise _wrong(place, f'service "{name}" depends on undefined service "{other}"')
            if how["required"]:
                raise _wrong(place, f'service "{name}" depends on undefined service "{other}"')
    for key in ("network_mode", "ipc", "pid"):
        mode = service.get(key) or ""
        if mode.startswith("service:") and mode.removeprefix("service:") not in project.all_services:
            other = mode.removeprefix("service:")
            raise _wrong(service.place(key), f'service "{name}" depends on undefined service "{other}"')


def _contradictions(name: str, service: Map) -> None:
    if service.get("network_mode") and service.get("networks"):
        raise _wrong(
            service.place("network_mode"),
            f"service {name} declares mutually exclusive `network_mode` and `networks`",
        )
    deploy = service.get("deploy") or {}
    resources = deploy.get("resources") or {}
    for key, part, member in _DEPLOYED:
        mine, theirs = service.get(key), (resources.get(part) or {}).get(member)
        if mine and theirs and mine != theirs:
            raise _wrong(
                service.place(key),
                f"services.{name}: can't set distinct values on '{key}' and "
                f"'deploy.resources.{part}.{member}'",
            )
    scale, replicas = service.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and scale != replicas:
        raise _wrong(
            service.place("scale"),
            f"services.{name}: can't set distinct values on 'scale' and 'deploy.replicas'",
        )
    requests = [*(service.get("gpus") or ()), *((resources.get("reservations") or {}).get("devices") or ())]
    for request in requests:
        if "count" in request and "device_ids" in request:
            raise FileError(
                request.at, f"services.{name}", '"count" and "device_ids" attributes are exclusive'
            )
    for watch in (service.get("develop") or {}).get("watch") or ():
        if watch["action"] != "rebuild" and not watch.get("target") and watch["action"] != "restart":
            raise _wrong(
                watch.at, f"services.{name}.develop.watch: target is required for non-rebuild actions"
            )


def _devices(name: str, service: Map) -> None:
    for index, device in enumerate(service.get("devices") or ()):
        if not device.get("target"):
            raise FileError(
                device.at, f"services.{name}.devices[{index}]", f'lacks its target, like "{device["source"]}"'
            )


def _mounts(name: str, service: Map) -> None:
    """Check that no target has two mounts."""
    seen: dict[str, str] = {}
    for index, text in enumerate(service.get("tmpfs") or ()):
        seen[text.partition(":")[0]] = f"services.{name}.tmpfs[{index}]"
    for index, volume in enumerate(service.get("volumes") or ()):
        target = volume.get("target") or ""
        here = f"services.{name}.volumes[{index}]"
        if target in seen:
            raise FileError(volume.at, "", f"{here}: target {target} already mounted as {seen[target]}")
        seen[target] = here
    for section in ("configs", "secrets"):
        for index, one in enumerate(service.get(section) or ()):
            target = one.get("target") or (f"/{one['source']}" if section == "configs" else "")
            here = f"services.{name}.{section}[{index}]"
            if target in seen:
                raise FileError(one.at, "", f"{here}: target {target} already mounted as {seen[target]}")
            seen[target] = here


def _build(project: Project, name: str, service: Map) -> None:
    build = service.get("build") or {}
    if build.get("dockerfile_inline") and build.get("dockerfile"):
        raise _wrong(
            service["build"].at,
            f'service "{name}" declares mutualy exclusive dockerfile and dockerfile_inline',
        )
    for key, value in (build.get("additional_contexts") or {}).items():
        if value.startswith("service:"):
            other = value.removeprefix("service:")
            if other not in project.services:
                raise _wrong(
                    service["build"].at,
                    f'service "{name}" declares unknown service "{other}" as additional contexts {key}',
                )
            if not project.services[other].get("build"):
                raise _wrong(
                    service["build"].at,
                    f'service "{name}" declares non-buildable service "{other}" as additional contexts {key}',
                )
    for one in build.get("secrets") or ():
        if one["source"] not in project.secrets:
            raise _wrong(one.at, f'service "{name}" refers to undefined build secret {one["source"]}')
    platforms = build.get("platforms") or ()
    if platforms and service.get("platform") and service["platform"] not in platforms:
        raise _wrong(
            service.place("platform"),
            f"service.build.platforms MUST include service.platform {service['platform']}",
        )


def _container_names(project: Project) -> None:
    from wherry.compose.project import replicas

    names: dict[str, str] = {}
    for name, service in project.services.items():
        given = service.get("container_name")
        if not given:
            continue
        if replicas(service) > 1:
            raise _wrong(
                service.place("container_name"),
                f"services.{name}: can't set container_name and scale beyond one, as a container's name "
                "is unique",
            )
        if given in names:
            raise _wrong(
                service.place("container_name"),
                f'services.{name}: container name "{given}" is already in use by service {names[given]}',
            )
        names[given] = name


def _file(section: str, key: str, one: Any) -> None:
    if one.get("external"):
        return
    sources = [source for source in ("file", "environment", "content") if source in one]
    if not sources and not one.get("driver"):
        words = "file, environment or content" if section == "configs" else "file or environment"
        raise FileError(one.at, f"{section}.{key}", f"must have one of {words}, or be external")
    if len(sources) > 1:
        raise FileError(one.at, f"{section}.{key}", f"must have only one of {', '.join(sources)}")
