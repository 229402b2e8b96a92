"""Volumes, secrets and configs of a service: the container's binds and mounts, and files to copy into it."""

from __future__ import annotations

from wherry.compose.places import ComposeError
from wherry.compose.scalars import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.compose.project import Project

    Object = dict[str, Any]

SECRETS_AT, CONFIGS_AT = "/run/secrets/", "/"


class ServiceMounts:
    """``binds``, ``mounts`` and the daemon's own ``secrets`` for the host configuration; ``targets`` are the
    mount targets."""

    def __init__(self) -> None:
        self.binds: list[str] = []
        self.mounts: list[Object] = []
        self.secrets: list[Object] = []

    @property
    def targets(self) -> set[str]:
        return {one["Target"] for one in self.mounts} | {bind.split(":")[1] for bind in self.binds}


class File:
    """A file to copy into a container before it starts."""

    def __init__(self, target: str, content: bytes, *, mode: int, uid: int, gid: int) -> None:
        self.target, self.content = target, content
        self.mode, self.uid, self.gid = mode, uid, gid


def mounts_of(project: Project, service: Any, inherited: dict[str, str]) -> ServiceMounts:
    """:param inherited: anonymous volumes of the container that this one replaces, by their targets."""
    made = ServiceMounts()
    for volume in service.get("volumes") or ():
        _volume(project, volume, inherited, made)
    taken = made.targets | {one.partition(":")[0] for one in service.get("tmpfs") or ()}
    for section, root in (("secrets", SECRETS_AT), ("configs", CONFIGS_AT)):
        for one in service.get(section) or ():
            definition = getattr(project, section)[one["source"]]
            if section == "secrets" and definition.get("external"):
                made.secrets.append(_kept_secret(one, definition))
            elif definition.get("file") and not _has_owner(one):
                made.mounts.append(
                    {
                        "Type": "bind",
                        "Source": definition["file"],
                        "Target": target_of(one, root),
                        "ReadOnly": True,
                    }
                )
    for target, name in inherited.items():
        if target not in taken and target not in made.targets:
            made.mounts.append({"Type": "volume", "Source": name, "Target": target})
    return made


def _kept_secret(one: Any, definition: Any) -> Object:
    """A secret that the daemon keeps, as a member of ``HostConfig.Secrets``."""
    made: Object = {"Name": definition["name"], "Target": target_of(one, SECRETS_AT)}
    for key, member in (("uid", "UID"), ("gid", "GID")):
        if one.get(key) is not None:
            made[member] = _number(one, key)
    if one.get("mode") is not None:
        made["Mode"] = int(one["mode"], 8)
    return made


def _has_owner(one: Any) -> bool:
    return any(key in one for key in ("uid", "gid", "mode"))


def target_of(one: Any, root: str) -> str:
    target = str(one.get("target") or root + one["source"])
    return target if target.startswith("/") else root + target


def _volume(project: Project, volume: Any, inherited: dict[str, str], made: ServiceMounts) -> None:
    kind = volume["type"]
    source = volume.get("source") or ""
    if kind == "volume" and source:
        source = project.resource_name("volumes", source)
    bind = volume.get("bind") or {}
    inner = volume.get("volume") or {}
    if kind == "volume" and source and not inner.get("subpath"):
        made.binds.append(_bind(source, volume, ["nocopy"] if inner.get("nocopy") else []))
        return
    made_there = bind.get("create_host_path") or "bind" not in volume
    if kind == "bind" and made_there and not bind.get("recursive"):
        options = [bind[key] for key in ("selinux", "propagation") if bind.get(key)]
        made.binds.append(_bind(source, volume, options))
        return
    target = volume.get("target") or ""
    if kind == "volume" and not source:
        source = inherited.get(target, "")
    mount: Object = {"Type": kind, "Target": target}
    if source:
        mount["Source"] = source
    if volume.get("read_only"):
        mount["ReadOnly"] = True
    if volume.get("consistency"):
        mount["Consistency"] = volume["consistency"]
    mount |= _options(kind, volume)
    made.mounts.append(mount)


def _bind(source: str, volume: Any, options: list[str]) -> str:
    return ":".join(
        (source, volume["target"], ",".join(["ro" if volume.get("read_only") else "rw", *options]))
    )


_RECURSIVE = {
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}


def _options(kind: str, volume: Any) -> Object:
    if kind == "bind":
        bind = volume.get("bind") or {}
        made: Object = dict(_RECURSIVE.get(bind.get("recursive", ""), {}))
        if bind.get("propagation"):
            made["Propagation"] = bind["propagation"]
        if bind.get("create_host_path"):
            made["CreateMountpoint"] = True
        return {"BindOptions": made} if made else {}
    if kind == "volume":
        inner = volume.get("volume") or {}
        made = {"NoCopy": bool(inner.get("nocopy"))}
        if inner.get("subpath"):
            made["Subpath"] = inner["subpath"]
        if inner.get("labels"):
            made["Labels"] = dict(inner["labels"])
        return {"VolumeOptions": made}
    if kind == "tmpfs":
        inner = volume.get("tmpfs") or {}
        return {"TmpfsOptions": {"SizeBytes": size(inner.get("size", 0)), "Mode": int(inner.get("mode", 0))}}
    if kind == "image":
        subpath = (volume.get("image") or {}).get("subpath")
        return {"ImageOptions": {"Subpath": subpath}} if subpath else {}
    return {}


def files_of(project: Project, service: Any) -> list[File]:
    """Secrets and configs that are not files here, or that have an owner or a mode: they are copied into the
    container.

    :raises ComposeError: a file cannot be read, a variable is not set, an owner is not a number.
    """
    found = []
    for section, root in (("secrets", SECRETS_AT), ("configs", CONFIGS_AT)):
        for one in service.get(section) or ():
            definition = getattr(project, section)[one["source"]]
            if definition.get("external") and section == "secrets":
                continue  # the daemon has it
            if definition.get("external"):
                raise ComposeError(
                    f"unsupported external config {definition.get('name')}: external configs belong to a "
                    "swarm; give a file, content or an environment variable instead"
                )
            if definition.get("file") and not _has_owner(one):
                continue
            found.append(
                File(
                    target_of(one, root),
                    _content(project, section[:-1], one["source"], definition),
                    mode=int(one.get("mode") or "0444", 8),
                    uid=_number(one, "uid"),
                    gid=_number(one, "gid"),
                )
            )
    return found


def _number(one: Any, key: str) -> int:
    text = str(one.get(key) or "0")
    if not text.isdecimal() or int(text) > 2**32 - 2:
        raise ComposeError(f"{key} of {one['source']} must be a number, not {text!r}")
    return int(text)


def _content(project: Project, kind: str, name: str, definition: Any) -> bytes:
    from wherry.client.files import read_file

    if "content" in definition:
        return str(definition["content"]).encode()
    if definition.get("file"):
        try:
            return read_file(definition["file"], most=16 << 20)
        except OSError as e:
            raise ComposeError(
                f"{kind} {name}: open {definition['file']}: {(e.strerror or '').lower()}"
            ) from None
    variable = definition.get("environment", "")
    value = project.environment.get(variable)
    if value is None:
        raise ComposeError(f'environment variable "{variable}" required by {kind} "{name}" is not set')
    return value.encode("utf-8", "surrogateescape")
