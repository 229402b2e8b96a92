"""Defaults: names, the default network, implied dependencies."""

from __future__ import annotations

from wherry.compose.places import Map, mapping, sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.compose.project import Project

SECRETS_AT = "/run/secrets/"


def fill_forms(project: Map) -> None:
    """Defaults within one long form, which do not depend on the rest of the project."""
    for service in (project.get("services") or {}).values():
        _fill_service(service)


def _fill_service(service: Map) -> None:
    for port in service.get("ports") or ():
        port.setdefault("mode", "ingress")
        port.setdefault("protocol", "tcp")
    for secret in service.get("secrets") or ():
        if not secret.get("target"):
            secret["target"] = SECRETS_AT + secret["source"]
    requests = list(service.get("gpus") or ())
    deploy = service.get("deploy")
    if isinstance(deploy, Map):
        for name in ("resources", "placement"):
            deploy.setdefault(name, Map(deploy.at))
        reservations = (deploy["resources"] or {}).get("reservations") or {}
        requests += reservations.get("devices") or ()
    for request in requests:
        if "count" not in request and "device_ids" not in request:
            request["count"] = -1
    for watch in (service.get("develop") or {}).get("watch") or ():
        watch.setdefault("exec", mapping({"command": None}, watch.at))
    policy = service.get("pull_policy")
    if policy == "if_not_present":
        service["pull_policy"] = "missing"


def normalise(project: Project) -> None:
    """Names, the default network, contexts, and dependencies that follow from other keys."""
    for service in project.all_services.values():
        if service.get("network_mode") or service.get("provider"):
            continue
        if not service.get("networks"):
            service["networks"] = mapping({"default": None}, service.at)
    uses_default = any("default" in (s.get("networks") or {}) for s in project.all_services.values())
    if uses_default and "default" not in project.networks:
        project.networks["default"] = Map()
    for network in project.networks.values():
        network.setdefault("ipam", Map(network.at))
    for service in project.all_services.values():
        _build(project, service)
        _depend(service)
    for section in ("networks", "volumes", "secrets", "configs", "models"):
        for key, one in getattr(project, section).items():
            if not one.get("name") and section != "models":
                one["name"] = key if one.get("external") else f"{project.name}_{key}"


def _build(project: Project, service: Map) -> None:
    build = service.get("build")
    if build is None:
        return
    build.setdefault("context", project.directory)
    if "dockerfile_inline" not in build:
        build.setdefault("dockerfile", "Dockerfile")
    if "args" in build:
        arguments = resolved(build["args"], project.environment)
        build["args"] = mapping({k: v for k, v in arguments.items() if v is not None}, build["args"].at)


def resolved(words: Map, environment: Any) -> Map:
    """Names without a value get the environment's value, if it has one."""
    made = Map(words.at)
    for name, value in words.items():
        made.put(name, environment.get(name) if value is None else value, words.place(name))
    return made


def _depend(service: Map) -> None:
    """Links and shared namespaces are dependencies."""
    found: dict[str, bool] = {}
    for link in service.get("links") or ():
        found.setdefault(link.partition(":")[0], True)
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        mode = service.get(key) or ""
        if mode.startswith("service:"):
            found.setdefault(mode.removeprefix("service:"), True)
    for one in service.get("volumes_from") or ():
        if not one.startswith("container:"):
            found.setdefault(one.partition(":")[0], False)
    if not found:
        return
    needs = service.setdefault("depends_on", Map(service.at))
    for name, restart in found.items():
        if name not in needs:
            needs[name] = mapping({"condition": "service_started", "required": True}, service.at)
            if restart:
                needs[name]["restart"] = True


def with_environment(project: Project, service: Map) -> Map:
    """A copy of the service in which ``env_file`` has become part of ``environment``.

    :raises FileError: a required file does not exist.
    """
    import os

    from wherry.compose import dotenv
    from wherry.compose.places import FileError, Place, copied

    made: Map = copied(service)
    mine = resolved(made.get("environment") or Map(made.at), project.environment)
    gathered: dict[str, str | None] = {}
    places: dict[str, Place] = {}
    for one in made.pop("env_file", None) or ():
        path = project.path(one["path"])
        if not os.path.exists(path):
            if not one.get("required", True):
                continue
            raise FileError(one.at if one.at.file else Place(path), "", f"env file {path} not found")
        raw = _raw(one, path)

        def known(name: str) -> str | None:
            outer = project.environment.get(name)
            return outer if outer is not None else gathered.get(name)

        for name, value in dotenv.read(path, known, raw=raw).items():
            gathered[name] = value
            places[name] = Place(path)
    if gathered or mine:
        environment = Map(mine.at)
        for name, value in {**gathered, **mine}.items():
            environment.put(name, value, mine.place(name) if name in mine else places[name])
        made["environment"] = environment
    return made


def _raw(one: Map, path: str) -> bool:
    from wherry.compose.places import FileError

    form = one.get("format") or ""
    if form not in ("", "raw"):
        raise FileError(
            one.place("format"), "", f'env_file {path}: unsupported format "{form}"; write raw or nothing'
        )
    return bool(form == "raw")


def with_label_files(project: Project, service: Map) -> None:
    """Merge ``label_file`` into ``labels``, which take precedence."""
    from wherry.compose import dotenv

    files = service.pop("label_file", None)
    if not files:
        return
    found: dict[str, str] = {}
    for file in files:
        values = dotenv.read(project.path(file), lambda _name: None)
        found.update((name, value or "") for name, value in values.items())
    labels = service.get("labels") or {}
    service["labels"] = mapping({**found, **labels}, service.at)


def external_forms(project: Map, warnings: list[str]) -> None:
    """Convert the old form ``external: {name: x}``."""
    for section in ("networks", "volumes", "secrets", "configs"):
        for key, one in (project.get(section) or {}).items():
            external = one.get("external")
            if isinstance(external, Map):
                warnings.append(
                    f"{section}.{key}: external.name is deprecated. Please set name and external: true"
                )
                if external.get("name"):
                    one["name"] = external["name"]
                one["external"] = True


__all__ = [
    "external_forms",
    "fill_forms",
    "normalise",
    "resolved",
    "sequence",
    "with_environment",
    "with_label_files",
]
