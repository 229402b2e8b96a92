"""A project's builds as a definition for ``docker buildx bake``: what ``build --print`` shows."""

from __future__ import annotations

from wherry.compose import buildspec, labels
from wherry.compose.project import image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.compose.buildspec import BuildChoices
    from wherry.compose.project import Project

    Object = dict[str, Any]


def definition(
    project: Project, names: Sequence[str], choices: BuildChoices, arguments: Mapping[str, str]
) -> Object:
    """The members are in the order in which Docker's plugin writes them.

    :param arguments: ``--build-arg``, with the values that come from this client's environment.
    """
    return {
        "group": {"default": {"targets": [_key(name) for name in names]}},
        "target": {_key(name): _target(project, name, choices, arguments) for name in sorted(names)},
    }


def _key(name: str) -> str:
    """A target's name, which may not have a dot."""
    return name.replace(".", "_")


def _target(project: Project, name: str, choices: BuildChoices, arguments: Mapping[str, str]) -> Object:
    service = project.services[name]
    spec = service["build"]
    platforms = buildspec.platforms(service)
    made: Object = {
        "context": spec["context"],
        "contexts": {
            key: f"target:{_key(value.removeprefix('service:'))}" if value.startswith("service:") else value
            for key, value in sorted((spec.get("additional_contexts") or {}).items())
        },
        "dockerfile-inline": spec.get("dockerfile_inline"),
        "dockerfile": None if spec.get("dockerfile_inline") else buildspec.dockerfile(spec),
        "args": {
            **{key: value for key, value in (spec.get("args") or {}).items() if value is not None},
            **arguments,
        },
        "labels": {
            **(spec.get("labels") or {}),
            **labels.of_image(project.name, name),
        },
        "tags": [*(spec.get("tags") or ()), image_of(project, name)],
        "cache-from": list(spec.get("cache_from") or ()),
        "cache-to": list(spec.get("cache_to") or ()),
        "target": spec.get("target"),
        "secret": [_secret(project, one) for one in spec.get("secrets") or ()],
        "ssh": [choices.ssh]
        if choices.ssh
        else [f"{k}={v or ''}" for k, v in (spec.get("ssh") or {}).items()],
        "platforms": platforms,
        "pull": choices.pull or bool(spec.get("pull")),
        "no-cache": choices.no_cache or bool(spec.get("no_cache")),
        "network": spec.get("network"),
        "shm-size": _size(spec.get("shm_size")),
        "ulimits": [_ulimit(key, limit) for key, limit in (spec.get("ulimits") or {}).items()],
        "entitlements": [
            *(spec.get("entitlements") or ()),
            *(["security.insecure"] if spec.get("privileged") else []),
        ],
        "extra-hosts": {key: ",".join(found) for key, found in (spec.get("extra_hosts") or {}).items()},
        "output": [_output(platforms, choices)],
        "attest": _attest(spec, choices),
    }
    made["args"] = dict(sorted(made["args"].items()))
    made["labels"] = dict(sorted(made["labels"].items()))
    return {key: value for key, value in made.items() if value}


def _output(platforms: Sequence[str], choices: BuildChoices) -> str:
    if choices.push:
        return "type=registry"
    return "type=image,push=false" if len(platforms) > 1 else "type=docker"


def _secret(project: Project, one: Any) -> str:
    definition_ = project.secrets[one["source"]]
    identifier = one.get("target") or one["source"]
    if definition_.get("environment"):
        return f"id={identifier},type=env,env={definition_['environment']}"
    return f"id={identifier},type=file,src={definition_.get('file')}"


def _size(value: Any) -> str | None:
    from wherry.compose.scalars import size

    return str(size(value)) if value else None


def _ulimit(name: str, limit: Any) -> str:
    if limit.get("single") is not None:
        return f"{name}={limit['single']}"
    return f"{name}={limit.get('soft')}:{limit.get('hard')}"


def _attest(spec: Any, choices: BuildChoices) -> list[str]:
    found = []
    for kind, given in (("provenance", choices.provenance), ("sbom", choices.sbom)):
        value = given or spec.get(kind)
        if value in (None, ""):
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text == "true":
            found.append(f"type={kind}")
        elif text == "false":
            found.append(f"type={kind},disabled=true")
        else:
            found.append(f"type={kind},{text}")
    return found
