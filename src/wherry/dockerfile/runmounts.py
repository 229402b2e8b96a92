"""``RUN --mount=type=…``: the keys of each type (docs.docker.com/reference/dockerfile, "RUN --mount")."""

from __future__ import annotations

import csv
from typing import Any, cast

from wherry.dockerfile.instructions import MountType, RunMount
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


Fields = tuple[tuple[str, str | None], ...]
"""The keys, by their long names, and their values; None without a value."""


def parse(text: str) -> RunMount:
    """:raises InvalidArgument: an unknown type or key, a key without its value.

    A mount whose values contain variables is checked as far as possible.
    """
    fields = _fields(text)
    for key, value in fields:
        if key == "from" and value and "$" in value[:-1]:
            raise InvalidArgument(f"'{key}' doesn't support variable expansion, define alias stage instead")
    if not any(value and "$" in value for key, value in fields if key != "from"):
        return make(fields)
    known = {key for keys in _KEYS.values() for key in keys} | {"type"}
    for key, _ in fields:
        if key not in known:
            raise InvalidArgument(f"unexpected key '{key}'")
    values = dict(fields)
    kind = values.get("type") or "bind"
    if "$" not in kind and kind.lower() not in _KEYS:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    shown = cast(MountType, kind.lower() if "$" not in kind else "bind")
    return RunMount(
        type=shown,
        fields=fields,
        open=True,
        target=values.get("target") or "",
        source=values.get("source") or "",
        from_=values.get("from") or "",
        id=values.get("id") or "",
    )


def make(fields: Fields) -> RunMount:
    """The mount that these fields describe; they contain no more variables. Raises as :func:`parse`."""
    texts = dict(fields)
    kind = (texts.pop("type", None) or "bind").lower()
    if kind not in _KEYS:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    values: dict[str, Any] = {}
    for key, value in texts.items():
        if key not in _KEYS[kind]:
            raise InvalidArgument(f"unexpected key '{key}' for mount type '{kind}'")
        values[key] = _boolean(key, value) if key in _BOOLEANS else value
    if (sharing := values.get("sharing")) is not None:
        values["sharing"] = sharing.lower()
        if sharing.lower() not in _SHARING:
            raise InvalidArgument(f'unsupported sharing value "{sharing}"')
    return _mount(cast(MountType, kind), values, fields)


def _fields(text: str) -> Fields:
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"failed to parse csv mounts: {e}") from e
    fields: dict[str, str | None] = {}
    for part in row:
        key, equals, value = part.partition("=")
        key = key.lower()
        key = _ALIASES.get(key, key)
        if not equals and key not in _BOOLEANS:
            raise InvalidArgument(f"invalid field '{part}' must be a key=value pair")
        fields.pop(key, None)  # the last one counts, at its own position
        fields[key] = value if equals else None
    return tuple(fields.items())


_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def _boolean(key: str, value: str | None) -> bool:
    if value is None or value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgument(f"invalid value for {key}: {value}")


def _mount(kind: MountType, values: dict[str, Any], fields: Fields) -> RunMount:
    readonly = kind == "bind"
    for key, _ in fields:  # the last of the two counts
        if key == "readonly":
            readonly = values["readonly"]
        elif key == "readwrite":
            readonly = not values["readwrite"]
    mount = RunMount(
        type=kind,
        fields=fields,
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
