"""``-v``, ``--mount`` and ``--tmpfs``."""

from __future__ import annotations

import os

from wherry.cli.grammar.values import boolean, memory
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CREATE_MOUNTPOINT = ("create-mountpoint", "bind-create-mountpoint", "bind-create-src")
"""All names of the option that creates a missing source."""


def split_volumes(specs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Sort ``-v`` values into binds (``source:target[:options]``) and anonymous volumes (a target alone).

    A source that begins with ``.`` is made absolute here, because only the client knows its directory.

    :raises InvalidArgument: an empty section or too many colons.
    """
    binds: list[str] = []
    anonymous: list[str] = []
    for spec in specs:
        parts = spec.split(":")
        if not all(parts):
            raise InvalidArgument(
                "invalid empty volume spec"
                if not spec
                else f"invalid spec: {spec}: empty section between colons"
            )
        if len(parts) > 3:
            raise InvalidArgument(f"invalid spec: {spec}: too many colons")
        if len(parts) == 1:
            anonymous.append(spec)
            continue
        if parts[0].startswith("."):
            parts[0] = os.path.abspath(parts[0])
        binds.append(":".join(parts))
    return binds, anonymous


def tmpfs(specs: Iterable[str]) -> dict[str, str]:
    """``/path:options`` by path."""
    return {path: options for path, _, options in (spec.partition(":") for spec in specs)}


def parse_mount(text: str) -> dict[str, Any]:
    """One ``--mount`` as the API's ``Mount``.

    :raises ValueError: in Docker's words.
    """
    from csv import reader

    fields = next(reader([text]), [])
    if not fields:
        raise ValueError("EOF")
    mount: dict[str, Any] = {"Type": "volume"}
    groups: dict[str, dict[str, Any]] = {"bind": {}, "volume": {}, "tmpfs": {}, "image": {}}
    for field in fields:
        if not field:
            raise ValueError("invalid value: empty field")
        _field(mount, groups, field)
    if not mount.get("Target"):
        raise ValueError("target is required")
    for kind, options in groups.items():
        if options and kind != mount["Type"]:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
        if options:
            mount[f"{kind.capitalize()}Options"] = options
    _check_recursion(mount, groups["bind"])
    if mount["Type"] == "bind" and str(mount.get("Source", "")).startswith("."):
        mount["Source"] = os.path.abspath(mount["Source"])
    return mount


def _field(mount: dict[str, Any], groups: dict[str, dict[str, Any]], field: str) -> None:
    key, equals, value = field.partition("=")
    key = key.lower()
    if not equals:
        if key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", *CREATE_MOUNTPOINT):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        value = "true"
    names = {
        "source": "Source",
        "src": "Source",
        "target": "Target",
        "dst": "Target",
        "destination": "Target",
    }
    if key == "type":
        mount["Type"] = value.lower()
    elif key in names:
        mount[names[key]] = value
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key == "owner":
        if value != "match":
            raise ValueError(f'invalid value for owner: {value} (must be "match")')
        mount["Owner"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _boolean(key, value)
    else:
        _option(groups, key, value, field)


def _option(groups: dict[str, dict[str, Any]], key: str, value: str, field: str) -> None:
    bind, volume, tmpfs_, image = (groups[kind] for kind in ("bind", "volume", "tmpfs", "image"))
    if key == "bind-propagation":
        bind["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        bind["NonRecursive"] = _boolean(key, value)
    elif key in CREATE_MOUNTPOINT:
        bind["CreateMountpoint"] = _boolean(key, value)
    elif key == "bind-recursive":
        _bind_recursive(bind, value)
    elif key == "volume-subpath":
        volume["Subpath"] = value
    elif key == "volume-nocopy":
        volume["NoCopy"] = _boolean(key, value)
    elif key == "volume-label":
        _pair(volume.setdefault("Labels", {}), value)
    elif key == "volume-driver":
        volume.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        _pair(volume.setdefault("DriverConfig", {}).setdefault("Options", {}), value)
    elif key == "tmpfs-size":
        tmpfs_["SizeBytes"] = _size(key, value)
    elif key == "tmpfs-mode":
        tmpfs_["Mode"] = _octal(key, value)
    elif key == "tmpfs-options":
        tmpfs_.setdefault("Options", []).extend(one.split("=", 1) for one in value.split(",") if one)
    elif key == "image-subpath":
        image["Subpath"] = value
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _bind_recursive(bind: dict[str, Any], value: str) -> None:
    if value == "enabled":
        return
    if value == "disabled":
        bind["NonRecursive"] = True
    elif value == "writable":
        bind["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        bind["ReadOnlyForceRecursive"] = True
    else:
        raise ValueError(
            f"invalid value for bind-recursive: {value} "
            '(must be "enabled", "disabled", "writable", or "readonly")'
        )


def _check_recursion(mount: dict[str, Any], bind: dict[str, Any]) -> None:
    """:raises ValueError: recursive read-only is asked for without the options that it requires."""
    forced = bind.get("ReadOnlyForceRecursive")
    if not mount.get("ReadOnly") and (forced or bind.get("ReadOnlyNonRecursive")):
        how = "readonly" if forced else "writable"
        raise ValueError(f"option 'bind-recursive={how}' requires 'readonly' to be specified in conjunction")
    if forced and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
            "to be specified in conjunction"
        )


def _boolean(key: str, value: str) -> bool:
    try:
        return boolean(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _size(key: str, value: str) -> int:
    try:
        return memory(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _octal(key: str, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _pair(into: dict[str, str], text: str) -> None:
    key, _, value = text.partition("=")
    into[key] = value
