"""A loaded project: the content of its files in long forms, with the place of each value."""

from __future__ import annotations

import os
from copy import copy

from wherry.compose.places import ComposeError, Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


class Project:
    """``services``, ``networks``, ``volumes``, ``secrets``, ``configs`` and ``models`` are mappings by name,
    in the long forms of :mod:`wherry.compose.schema`; ``extensions`` the ``x-`` keys at the top.

    ``disabled`` are the services whose profiles are not active. ``files`` are absolute paths, as in labels.
    """

    def __init__(
        self,
        name: str,
        directory: str,
        files: list[str],
        environment: Mapping[str, str],
        *,
        env_files: Sequence[str] = (),
        profiles: Sequence[str] = (),
        warnings: Iterable[str] = (),
        separator: str = "-",
    ) -> None:
        """:param separator: stands between the names of project and service and a container's number."""
        self.name, self.directory, self.files = name, directory, files
        self.environment = environment
        self.env_files, self.profiles = list(env_files), list(profiles)
        self.services: dict[str, Any] = {}
        self.disabled: dict[str, Any] = {}
        self.networks: dict[str, Any] = {}
        self.volumes: dict[str, Any] = {}
        self.secrets: dict[str, Any] = {}
        self.configs: dict[str, Any] = {}
        self.models: dict[str, Any] = {}
        self.extensions: dict[str, Any] = {}
        self.warnings = list(warnings)
        self.separator = separator

    def with_services(self, services: dict[str, Any]) -> Project:
        """The same project with other services; everything else is shared with this one."""
        other = copy(self)
        other.services = services
        return other

    @property
    def all_services(self) -> dict[str, Any]:
        return {**self.services, **self.disabled}

    def service(self, name: str) -> Any:
        """:raises ComposeError: there is no service with that name."""
        found = self.services.get(name) or self.disabled.get(name)
        if found is None:
            raise ComposeError(f"no such service: {name}")
        return found

    def replicas(self, name: str) -> int:
        return replicas(self.services[name])

    def dependencies(self, name: str) -> dict[str, Any]:
        """The services that one needs, with their conditions."""
        return self.all_services[name].get("depends_on") or {}

    def enable(self, names: Iterable[str]) -> None:
        """Enable services that a command line names, and those that they need, whatever their profiles.

        :raises ComposeError: no such service; a dependency that only another profile enables.
        """
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.services:
                continue
            if name not in self.disabled:
                raise ComposeError(f"no such service: {name}")
            self.services[name] = self.disabled.pop(name)
            waiting += [
                one
                for one, how in self.dependencies(name).items()
                if one in self.disabled and how["required"]
            ]

    def with_dependencies(self, names: Iterable[str]) -> list[str]:
        """The services and all their dependencies, in the order of the file."""
        wanted: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in wanted or name not in self.services:
                continue
            wanted.add(name)
            waiting += self.dependencies(name)
        return [name for name in self.services if name in wanted]

    def dependents(self, name: str) -> list[str]:
        """The services that depend on one directly."""
        return [one for one in self.services if name in self.dependencies(one)]

    def levels(self, names: Iterable[str]) -> list[list[str]]:
        """The services in groups: each depends only on services of earlier groups.

        :raises ComposeError: a cycle of dependencies.
        """
        left = set(names)
        done: list[list[str]] = []
        while left:
            ready = sorted(name for name in left if not left & set(self.dependencies(name)) - {name})
            if not ready:
                raise ComposeError(f"dependency cycle detected: {' -> '.join(cycle(self, left))}")
            done.append(ready)
            left -= set(ready)
        return done

    def resource_name(self, kind: str, key: str) -> str:
        """The name of a network or a volume at the daemon."""
        definition = getattr(self, kind).get(key) or {}
        return str(definition.get("name") or f"{self.name}_{key}")

    def path(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.directory, path))


def replicas(service: Any) -> int:
    deploy = service.get("deploy") or {}
    if "scale" in service:
        return int(service["scale"])
    return int(deploy["replicas"]) if deploy.get("replicas") is not None else 1


def cycle(project: Project, among: set[str]) -> list[str]:
    """One cycle of services that depend on each other."""
    path = [min(among)]
    while True:
        following = sorted(set(project.dependencies(path[-1])) & among)
        if not following:
            return path
        if following[0] in path:
            return [*path[path.index(following[0]) :], following[0]]
        path.append(following[0])


def extensions_of(value: Map) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key.startswith("x-")}


def image_of(project: Project, name: str) -> str:
    """The image that a service runs: its ``image``, else the name of its build's result."""
    service = project.service(name)
    return str(service.get("image") or f"{project.name}{project.separator}{name}")
