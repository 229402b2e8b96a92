"""The Engine API's definition, for tests that hold what we read and write against it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parent.parent / "data" / "engine_api.yaml"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
Schema = Mapping[str, Any]


@cache
def definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(_FILE.read_text(), yaml.CSafeLoader)
    return found


def resolve(schema: Schema) -> Schema:
    """Follow references, and put the parts of an ``allOf`` together."""
    while "$ref" in schema:
        schema = {
            **definition()["definitions"][schema["$ref"].rpartition("/")[2]],
            **{k: v for k, v in schema.items() if k.startswith("x-")},
        }
    parts = schema.get("allOf")
    if not parts:
        return schema
    whole: dict[str, Any] = {"properties": {}, "required": []}
    for part in [*parts, {k: v for k, v in schema.items() if k != "allOf"}]:
        found = resolve(part)
        whole["properties"].update(found.get("properties", {}))
        whole["required"] += found.get("required", [])
        whole |= {k: v for k, v in found.items() if k not in ("properties", "required")}
    if not whole["properties"]:
        del whole["properties"]
    return whole


def named(name: str) -> Schema:
    return resolve(definition()["definitions"][name])


def operation(method: str, path: str) -> Schema:
    found: Schema = definition()["paths"][path][method]
    return found


def body(method: str, path: str) -> Schema:
    return resolve(operation(method, path)["body"])


def answer(method: str, path: str, code: int = 200) -> Schema:
    return resolve(operation(method, path)["answers"][code])


def differences(
    value: Any, schema: Schema, *, ours: frozenset[str] = frozenset(), left_out: frozenset[str] = frozenset()
) -> list[str]:
    """What of an answer is not as the definition has it: members that are unknown or missing, kinds, nulls.

    :param ours: paths of members that this engine adds. :param left_out: those that it does not have.
        A list's elements and a map's values are ``*`` in them.
    """
    return list(_differences(value, resolve(schema), "", ours, left_out))


def _differences(
    value: Any, schema: Schema, path: str, ours: frozenset[str], left_out: frozenset[str]
) -> Iterator[str]:
    if value is None:
        # Go's nil slices and maps are null; scalars only where the definition says so
        kind = schema.get("type")
        if not schema.get("x-nullable", kind in ("array", "object")):
            yield f"{path}: null"
        return
    kind = schema.get("type", "object" if "properties" in schema else None)
    wrong = {
        "object": not isinstance(value, dict),
        "array": not isinstance(value, list),
        "string": not isinstance(value, str),
        "boolean": not isinstance(value, bool),
        "integer": not isinstance(value, int) or isinstance(value, bool),
        "number": not isinstance(value, (int, float)) or isinstance(value, bool),
    }.get(kind or "", False)
    if wrong:
        yield f"{path}: {type(value).__name__} where the definition has {kind}"
        return
    if isinstance(value, str):
        if value and value not in schema.get("enum", [value]):
            yield f"{path}: {value!r} is none of {schema['enum']}"
        if schema.get("format") == "dateTime" and not _DATE.fullmatch(value):
            yield f"{path}: {value!r} is no time"
    elif isinstance(value, list):
        for one in value:
            yield from _differences(one, resolve(schema.get("items", {})), f"{path}.*", ours, left_out)
    elif isinstance(value, dict):
        yield from _members(value, schema, path, ours, left_out)


def _members(
    value: dict[str, Any], schema: Schema, path: str, ours: frozenset[str], left_out: frozenset[str]
) -> Iterator[str]:
    known = schema.get("properties")
    if known is None:
        inner = schema.get("additionalProperties")
        for one in value.values():
            yield from _differences(
                one, resolve(inner) if isinstance(inner, dict) else {}, f"{path}.*", ours, left_out
            )
        return
    for name, one in value.items():
        at = f"{path}.{name}".lstrip(".")
        if name in known:
            yield from _differences(one, resolve(known[name]), at, ours, left_out)
        elif at not in ours:
            yield f"{at}: not in the definition"
    for name in [*known, *schema.get("required", ())]:
        at = f"{path}.{name}".lstrip(".")
        if name not in value and at not in left_out and not known.get(name, {}).get("x-omitempty"):
            yield f"{at}: missing"
