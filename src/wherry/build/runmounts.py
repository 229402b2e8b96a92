"""``RUN --mount=type=…``: the keys each type knows (docs.docker.com/reference/dockerfile, "RUN --mount")."""

from __future__ import annotations

import csv
from typing import Any, cast

from wherry.build.instructions import MountType, RunMount
from wherry.errors import InvalidArgument

_SHARING = ("shared", "private", "locked")
_ALIASES = {"destination": "target", "dst": "target", "src": "source", "rw": "readwrite", "ro": "readonly"}
_KEYS: dict[str, frozenset[str]] = {
    "bind": frozenset(("target", "source", "from", "readwrite", "readonly")),
    "cache": frozenset(
        ("id", "target", "source", "from", "readonly", "readwrite", "sharing", "mode", "uid", "gid")
    ),
    "tmpfs": frozenset(("target", "size", "readwrite", "readonly")),
    "secret": frozenset(("id", "target", "source", "env", "required", "mode", "uid", "gid")),
    "ssh": frozenset(("id", "target", "required", "mode", "uid", "gid")),
}
_BOOLEANS = frozenset(("readonly", "readwrite", "required"))


def parse(text: str) -> RunMount:
    """:raises InvalidArgument: an unknown type or key, a key without its value."""
    fields = _fields(text)
    kind = fields.pop("type", "bind")
    if kind not in _KEYS:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    values: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in _KEYS[kind]:
            raise InvalidArgument(f"unexpected key '{key}' for mount type '{kind}'")
        values[key] = _boolean(key, value) if key in _BOOLEANS else value
    if (sharing := values.get("sharing")) is not None and sharing not in _SHARING and "$" not in sharing:
        raise InvalidArgument(f"unsupported sharing value {sharing!r}")
    return _mount(cast(MountType, kind), values)


def _fields(text: str) -> dict[str, str | None]:
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"failed to parse csv mounts: {e}") from e
    fields: dict[str, Any] = {}
    for part in row:
        key, equals, value = part.partition("=")
        key = key.lower()
        key = _ALIASES.get(key, key)
        if not equals and key not in _BOOLEANS:
            raise InvalidArgument(f"invalid field '{part}' must be a key=value pair")
        fields[key] = value if equals else None
    return fields


def _boolean(key: str, value: str | None) -> bool:
    if value is None or value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise InvalidArgument(f"invalid value for {key}: {value}")


def _mount(kind: MountType, values: dict[str, Any]) -> RunMount:
    readonly = kind == "bind"
    if "readonly" in values:
        readonly = values["readonly"]
    elif "readwrite" in values:
        readonly = not values["readwrite"]
    mount = RunMount(
        type=kind,
        target=values.get("target", ""),
        source=values.get("source", ""),
        from_=values.get("from", ""),
        readonly=readonly,
        id=values.get("id", ""),
        sharing=values.get("sharing", "shared"),
        mode=values.get("mode", ""),
        uid=values.get("uid", ""),
        gid=values.get("gid", ""),
        size=values.get("size", ""),
        required=values.get("required", False),
        env=values.get("env"),
    )
    _check(mount)
    return mount


def _check(mount: RunMount) -> None:
    if mount.type == "secret":
        if not mount.id and not mount.source and not mount.target:
            raise InvalidArgument("invalid secret mount: one of id, source, target required")
        return
    if mount.type != "ssh" and not mount.target:
        raise InvalidArgument(f"invalid mount of type {mount.type}: target is required")
