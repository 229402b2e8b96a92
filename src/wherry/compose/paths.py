"""Make the relative paths in a project absolute, from the directory of their file."""

from __future__ import annotations

import os

from wherry.compose.places import FileError, Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")


def absolute(path: str, directory: str) -> str:
    expanded = os.path.expanduser(path) if path.startswith("~") else path
    return os.path.normpath(os.path.join(directory, expanded))


def is_remote(context: str) -> bool:
    """Whether a build context is not a local directory."""
    return context.startswith(_REMOTE) or "://" in context or (context.endswith(".git") and ":" in context)


def resolve(project: Map, directory: str) -> None:
    """Make all paths of a layer absolute, in place."""
    for name, service in (project.get("services") or {}).items():
        if isinstance(service, Map):
            resolve_service(service, directory, name)
    for section in ("configs", "secrets"):
        for one in (project.get(section) or {}).values():
            _member(one, "file", directory)
    for one in (project.get("volumes") or {}).values():
        options = one.get("driver_opts") if isinstance(one, Map) else None
        if isinstance(options, Map) and one.get("driver", "local") == "local" and _binds(options):
            _member(options, "device", directory)


def _binds(options: Map) -> bool:
    return options.get("type") in ("none", None) and "bind" in str(options.get("o", "")).split(",")


def _member(holder: Any, key: str, directory: str) -> None:
    if isinstance(holder, Map) and isinstance(holder.get(key), str) and holder[key]:
        holder[key] = absolute(holder[key], directory)


def resolve_service(service: Map, directory: str, name: str) -> None:
    build = service.get("build")
    if isinstance(build, Map):
        _build(build, directory)
    for one in service.get("env_file") or ():
        _member(one, "path", directory)
    labels = service.get("label_file")
    if isinstance(labels, list):
        labels[:] = [absolute(one, directory) for one in labels]
    extends = service.get("extends")
    if isinstance(extends, Map):
        _member(extends, "file", directory)
    volumes = service.get("volumes") or ()
    for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        if not isinstance(volume, Map):
            continue
        if volume.get("type") == "bind":
            if not volume.get("source"):
                raise FileError(
                    volume.at, f"services.{name}.volumes[{index}]", "of type bind lacks its source"
                )
            if not _windows(volume["source"]):
                _member(volume, "source", directory)
    develop = service.get("develop")
    for one in (develop.get("watch") or ()) if isinstance(develop, Map) else ():
        _member(one, "path", directory)


def _windows(source: str) -> bool:
    """Whether it is a Windows path, or Docker's plugin treats it as one: then it is not changed."""
    return len(source) > 1 and source[1] == ":" and source[0].isalpha()


def _build(build: Map, directory: str) -> None:
    context = build.get("context")
    if isinstance(context, str) and not is_remote(context):
        build["context"] = absolute(context, directory)
    more = build.get("additional_contexts")
    if isinstance(more, Map):
        for key, value in more.items():
            if (
                isinstance(value, str)
                and "://" not in value
                and not value.startswith(("service:", "target:"))
                and not is_remote(value)
            ):
                more[key] = absolute(value, directory)
