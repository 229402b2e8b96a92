"""Devices described by vendors: the Container Device Interface (CDI specification 0.8).

A spec file (JSON or YAML, in one of the directories) names a kind, ``vendor.com/class``, and its devices. For
each it lists what a container needs to use it: variables, device nodes, mounts, hooks. Users request a device
as ``vendor.com/class=name``. The files belong to the host's administrator: their hooks run on the host.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.model import typed

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_-]*")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_FILE_MAX = 4 << 20


class _Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A member of the specification, in its camelCase."""


class DeviceNode(_Shape, frozen=True, kw_only=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(_Shape, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    options: list[str] = msgspec.field(default_factory=list)
    type: str = ""


class Hook(_Shape, frozen=True, kw_only=True):
    hook_name: str
    path: str
    args: list[str] = msgspec.field(default_factory=list)
    env: list[str] = msgspec.field(default_factory=list)
    timeout: int | None = None


class Edits(_Shape, frozen=True, kw_only=True):
    """What a device changes in a container's specification."""

    env: list[str] = msgspec.field(default_factory=list)
    device_nodes: list[DeviceNode] = msgspec.field(default_factory=list)
    mounts: list[CdiMount] = msgspec.field(default_factory=list)
    hooks: list[Hook] = msgspec.field(default_factory=list)
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")


class _Device(_Shape, frozen=True, kw_only=True):
    name: str
    container_edits: Edits = msgspec.field(default_factory=Edits)


class _Spec(_Shape, frozen=True, kw_only=True):
    kind: str
    cdi_version: str
    devices: list[_Device] = msgspec.field(default_factory=list)
    container_edits: Edits = msgspec.field(default_factory=Edits)


@dataclass(frozen=True)
class Injection:
    """The edits of all devices of a container, as runtime-spec members."""

    env: tuple[str, ...] = ()
    nodes: tuple[dict[str, Any], ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    mounts: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    """destination, type, source, options"""
    hooks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    groups: tuple[int, ...] = ()


class CdiRegistry:
    """The devices of the directories, read again at each request; later directories override earlier ones."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)

    def names(self) -> list[str]:
        """Every device, ``vendor.com/class=name``, sorted."""
        return sorted(self._devices())

    def inject(self, wanted: Sequence[str]) -> Injection:
        """:raises InvalidArgument: devices that do not exist; the text names them all."""
        known = self._devices() if wanted else {}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InvalidArgument(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)}"
            )
        edits: list[Edits] = []
        specs: list[int] = []
        for name in dict.fromkeys(wanted):
            spec, device = known[name]
            if id(spec) not in specs:  # the edits of the whole kind, once
                specs.append(id(spec))
                edits.append(spec.container_edits)
            edits.append(device.container_edits)
        return _merge(edits)

    def _devices(self) -> dict[str, tuple[_Spec, _Device]]:
        found: dict[str, tuple[_Spec, _Device]] = {}
        for directory in self.directories:
            here: dict[str, tuple[_Spec, _Device]] = {}
            twice: set[str] = set()
            for spec in _specs(directory):
                for device in spec.devices:
                    name = f"{spec.kind}={device.name}"
                    if name in here:
                        twice.add(name)
                    here[name] = (spec, device)
            for name in twice:
                _log.warning("CDI device %s is described twice in %s: it cannot be used", name, directory)
                here.pop(name)
                found.pop(name, None)
            found |= here
        return found


def is_qualified(name: str) -> bool:
    """Whether ``name`` is ``vendor.com/class=name``."""
    kind, equals, device = name.partition("=")
    return bool(equals and _KIND.fullmatch(kind) and _NAME.fullmatch(device))


def _specs(directory: Path) -> Iterator[_Spec]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if name.endswith((".json", ".yaml", ".yml")) and not name.startswith("."):
            try:
                yield _read(directory / name)
            except (OSError, ValueError, msgspec.MsgspecError) as e:
                _log.warning("ignored CDI spec %s: %s", directory / name, str(e).splitlines()[0])


def _read(path: Path) -> _Spec:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _FILE_MAX:
            raise ValueError("not a regular file of a sane size")
        text = file.read(_FILE_MAX)
    spec = typed.from_json(text, _Spec) if path.suffix == ".json" else _yaml(text)
    if not _KIND.fullmatch(spec.kind):
        raise ValueError(f"invalid kind {spec.kind!r}")
    for device in spec.devices:
        if not _NAME.fullmatch(device.name):
            raise ValueError(f"invalid device name {device.name!r}")
        _check(device.container_edits)
    _check(spec.container_edits)
    return spec


def _yaml(text: bytes) -> _Spec:
    import yaml  # 20 ms: only hosts with such files pay for it

    try:
        return typed.from_builtins(yaml.safe_load(text), _Spec)
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(f"not YAML: {e}") from e


def _check(edits: Edits) -> None:
    for hook in edits.hooks:
        if hook.hook_name not in _HOOKS or not hook.path.startswith("/"):
            raise ValueError(f"invalid hook {hook.hook_name!r}")
    for node in edits.device_nodes:
        if not node.path.startswith("/") or set(node.permissions) - set("rwm"):
            raise ValueError(f"invalid device node {node.path!r}")
    for mount in edits.mounts:
        if not mount.container_path.startswith("/") or not mount.host_path:
            raise ValueError(f"invalid mount {mount.container_path!r}")


def _merge(all_edits: Sequence[Edits]) -> Injection:
    env: dict[str, str] = {}
    nodes: dict[str, dict[str, Any]] = {}
    rules, mounts, groups = [], {}, []
    hooks: dict[str, list[dict[str, Any]]] = {}
    for edits in all_edits:
        env |= {entry.partition("=")[0]: entry for entry in edits.env}
        for node in edits.device_nodes:
            made = _node(node)
            nodes[node.path] = made
            rule = {k: made[k] for k in ("type", "major", "minor")}
            rules.append({"allow": True, **rule, "access": node.permissions or "rwm"})
        for m in edits.mounts:
            kind = m.type or (
                "bind" if "bind" in m.options or "rbind" in m.options or not m.options else "none"
            )
            mounts[m.container_path] = (
                m.container_path,
                kind,
                m.host_path,
                tuple(m.options or ("rbind", "ro")),
            )
        for hook in edits.hooks:
            shown: dict[str, Any] = {"path": hook.path, "args": hook.args or [hook.path], "env": hook.env}
            if hook.timeout:
                shown["timeout"] = hook.timeout
            hooks.setdefault(hook.hook_name, []).append(shown)
        groups += edits.additional_gids
    return Injection(
        tuple(env.values()),
        tuple(nodes.values()),
        tuple(rules),
        tuple(mounts.values()),
        hooks,
        tuple(dict.fromkeys(groups)),
    )


def _node(node: DeviceNode) -> dict[str, Any]:
    """Fields that the spec leaves out are taken from the host's device."""
    kind, major, minor = node.type, node.major, node.minor
    mode, uid, gid = node.file_mode, node.uid, node.gid
    if not kind or major is None or minor is None:
        where = node.host_path or node.path
        try:
            info = os.stat(where)
        except OSError as e:
            raise InvalidArgument(f"CDI device injection failed: the host has no device {where!r}") from e
        if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
            raise InvalidArgument(f"CDI device injection failed: {where!r} is not a device")
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        mode = stat.S_IMODE(info.st_mode) if mode is None else mode
        uid, gid = info.st_uid if uid is None else uid, info.st_gid if gid is None else gid
    return {
        "path": node.path,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": 0o666 if mode is None else mode & 0o7777,
        "uid": uid or 0,
        "gid": gid or 0,
    }
