"""Every struct that reads a request against the Engine API's definition: names, kinds, what must be there."""

from __future__ import annotations

from typing import Any

import apidefinition
import pytest
from msgspec import inspect

from wherry.api.routes.containers import CreateBody
from wherry.api.routes.networks import Connect, Disconnect, NetworkCreate
from wherry.api.routes.secrets import SecretSpec
from wherry.api.routes.volumes import VolumeCreate
from wherry.model.container import ContainerConfig, ContainerUpdate
from wherry.model.exec import ExecConfig, ExecStart
from wherry.wire.auth import AuthConfig

REQUESTS: dict[tuple[str, str], Any] = {
    ("POST", "/containers/create"): CreateBody,
    ("POST", "/containers/{id}/update"): ContainerUpdate,
    ("POST", "/containers/{id}/exec"): ExecConfig,
    ("POST", "/exec/{id}/start"): ExecStart,
    ("POST", "/networks/create"): NetworkCreate,
    ("POST", "/networks/{id}/connect"): Connect,
    ("POST", "/networks/{id}/disconnect"): Disconnect,
    ("POST", "/volumes/create"): VolumeCreate,
    ("POST", "/auth"): AuthConfig,
    ("POST", "/commit"): ContainerConfig,
    ("POST", "/secrets/create"): SecretSpec,
}

OURS = {
    "Healthcheck.OnFailure", "HostConfig.PortBindings.*.*.Sources", "HostConfig.Mounts.*.Owner",
    "HostConfig.Secrets", "MountsAdd", "MountsRemove", "DevicesAdd", "DevicesRemove", "PublishAdd",
    "PublishRemove",
}  # fmt: skip
"""Additions of this engine."""
OLDER = {"MacAddress", "email", "auth", "identitytoken", "registrytoken"}
"""What older versions of the API have, and what Docker reads without saying so."""
ANSWERED_ONLY = {
    "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address",
    "GlobalIPv6PrefixLen", "DNSNames",
}  # fmt: skip
"""Members of ``EndpointSettings`` that say what became of it."""
NOT_CHANGED = {"Init"}
"""The definition has it among what an update changes; Docker does not read it there."""

_KINDS: dict[type, str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.BoolType: "boolean",
    inspect.ListType: "array",
    inspect.TupleType: "array",
    inspect.DictType: "object",
    inspect.StructType: "object",
}


def _plain(info: inspect.Type) -> inspect.Type:
    """Without the ``| None``; of a list that may be one string, the list."""
    if isinstance(info, inspect.UnionType):
        return next(one for one in info.types if not isinstance(one, inspect.NoneType))
    return info


def _compare(schema: apidefinition.Schema, info: inspect.Type, path: str, wrong: list[str]) -> None:
    schema, info = apidefinition.resolve(schema), _plain(info)
    kind = _KINDS.get(type(info))
    if kind is not None and schema.get("type", "object") != kind:
        wrong.append(f"{path}: {kind}, and the definition has {schema.get('type')}")
    if isinstance(info, inspect.ListType):
        _compare(schema.get("items", {}), info.item_type, f"{path}.*", wrong)
    elif isinstance(info, inspect.DictType) and isinstance(schema.get("additionalProperties"), dict):
        _compare(schema["additionalProperties"], info.value_type, f"{path}.*", wrong)
    elif isinstance(info, inspect.StructType):
        known, have = schema.get("properties", {}), {f.encode_name: f for f in info.fields}
        unread = known.keys() - have.keys() - ANSWERED_ONLY - NOT_CHANGED
        wrong += [f"{path}.{name}: not read" for name in unread]
        for name, field in have.items():
            at = f"{path}.{name}".lstrip(".")
            if field.required:
                wrong.append(f"{at}: has no default, and Go takes its absence for nothing")
            if name in known:
                _compare(known[name], field.type, at, wrong)
            elif at not in OURS | OLDER:
                wrong.append(f"{at}: not in the definition")


@pytest.mark.parametrize(("method", "path"), REQUESTS, ids=lambda one: one.strip("/").replace("/", "-"))
def test_request(method: str, path: str) -> None:
    wrong: list[str] = []
    _compare(apidefinition.body(method, path), inspect.type_info(REQUESTS[method, path]), "", wrong)
    assert wrong == []


def test_every_json_body_is_among_them() -> None:
    swarm = ("/swarm", "/nodes", "/services", "/configs", "/plugins", "/tasks", "/secrets/{id}")
    elsewhere = {"/volumes/{name}"}  # cluster volumes alone can be updated
    bodies = {
        (method, path)
        for path, methods in apidefinition.definition()["paths"].items()
        for method, operation in methods.items()
        if "body" in operation and not path.startswith(swarm) and path not in elsewhere
    }
    archives = {one for one in bodies if apidefinition.body(*one).get("type") == "string"}
    assert bodies - archives == set(REQUESTS)
