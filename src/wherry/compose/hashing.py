"""The configuration hashes in the labels of containers, networks and volumes, by which ``up`` detects
changes.

They are equal to those of Docker's plugin 2.40, so that each program accepts the other's objects.
"""

from __future__ import annotations

from wherry.compose import gojson, schema
from wherry.compose.places import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_HASHED = ("build", "pull_policy", "scale", "depends_on", "profiles")


def of_service(service: Map, *, replicas: bool = False) -> str:
    """The hash for containers of a service; ``service`` is in long forms, its environment resolved.

    Keys that do not change the container are left out: build, pull, scale, dependencies.
    """
    kept = Map(service.at)
    for key, value in service.items():
        if key not in _NOT_HASHED:
            kept[key] = value
    arranged = written(kept)
    if "deploy" in arranged and not replicas:
        arranged["deploy"] = {k: v for k, v in arranged["deploy"].items() if k != "replicas"}
    return _digest(arranged)


def written(service: Map) -> dict[str, Any]:
    """A service as Docker's plugin writes it in JSON."""
    made: dict[str, Any] = schema.SERVICE.arrange(service)
    if "env_file" in made:
        made["env_file"] = [_env_file(one) for one in made["env_file"]]
    made.pop("label_file", None)
    return made


def _env_file(one: dict[str, Any]) -> Any:
    """Only the path, if the entry has no other settings."""
    return one["path"] if one.get("required", True) else one


def of_network(network: Map) -> str:
    made = schema.NETWORK.arrange(network)
    made.pop("external", None)
    made.setdefault("ipam", {})
    return _digest(made)


def of_volume(volume: Map) -> str:
    made = schema.VOLUME_DEFINITION.arrange(volume)
    if not made.get("driver"):
        made["driver"] = "local"
    return _digest({key: made[key] for key in schema.VOLUME_DEFINITION.fields if key in made})


def _digest(value: Any) -> str:
    from hashlib import sha256

    return sha256(gojson.compact(value).encode()).hexdigest()
